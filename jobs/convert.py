"""Entry point for `ray job submit -- python -m jobs.convert`; see slams_ray/cli/convert.py."""

from slams_ray.cli.convert import main

if __name__ == "__main__":
    main()
