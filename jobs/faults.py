"""Entry point for `ray job submit -- python -m jobs.faults`; see slams_ray/cli/faults.py."""

from slams_ray.cli.faults import main

if __name__ == "__main__":
    main()
