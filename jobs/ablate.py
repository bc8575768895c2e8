"""Entry point for `ray job submit -- python -m jobs.ablate`; see slams_ray/cli/ablate.py."""

from slams_ray.cli.ablate import main

if __name__ == "__main__":
    main()
