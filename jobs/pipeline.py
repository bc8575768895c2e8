"""Entry point for `ray job submit -- python -m jobs.pipeline`; see slams_ray/cli/pipeline.py."""

from slams_ray.cli.pipeline import main

if __name__ == "__main__":
    main()
