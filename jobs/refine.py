"""Make pseudo labels with a dense CRF. Stages before it run first where their output is missing.

python -m jobs.refine demo
"""

from slams_ray.cli.command import run_pipeline_job

if __name__ == "__main__":
    run_pipeline_job("refine", __doc__)
