"""Entry point for `ray job submit -- python -m jobs.serve`; see slams_ray/cli/serve.py."""

from slams_ray.cli.serve import main

if __name__ == "__main__":
    main()
