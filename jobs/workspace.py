"""Entry point for `ray job submit -- python -m jobs.workspace`; see slams_ray/cli/workspace.py."""

from slams_ray.cli.workspace import main

if __name__ == "__main__":
    main()
