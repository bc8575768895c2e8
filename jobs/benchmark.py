"""Entry point for `ray job submit -- python -m jobs.benchmark`; see slams_ray/cli/benchmark.py."""

from slams_ray.cli.benchmark import main

if __name__ == "__main__":
    main()
