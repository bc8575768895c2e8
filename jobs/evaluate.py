"""Score the segmentation network. Stages before it run first where their output is missing.

python -m jobs.evaluate demo
"""

from slams_ray.cli.command import run_pipeline_job

if __name__ == "__main__":
    run_pipeline_job("evaluate", __doc__)
