"""Entry point for `ray job submit -- python -m jobs.predict`; see slams_ray/cli/predict.py."""

from slams_ray.cli.predict import main

if __name__ == "__main__":
    main()
