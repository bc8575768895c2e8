"""Entry point for `ray job submit -- python -m jobs.compare`; see slams_ray/cli/compare.py."""

from slams_ray.cli.compare import main

if __name__ == "__main__":
    main()
