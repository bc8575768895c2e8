"""Entry point for `ray job submit -- python -m jobs.export`; see slams_ray/cli/export.py."""

from slams_ray.cli.export import main

if __name__ == "__main__":
    main()
