"""Score every background threshold and choose one; missing earlier stages run first.

python -m jobs.search_threshold demo
"""

from slams_ray.cli.command import run_pipeline_job

if __name__ == "__main__":
    run_pipeline_job("search_threshold", __doc__)
