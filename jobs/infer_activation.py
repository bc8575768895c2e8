"""Store CAM and SLAMs maps. Stages before it run first where their output is missing.

python -m jobs.infer_activation demo
"""

from slams_ray.cli.command import run_pipeline_job

if __name__ == "__main__":
    run_pipeline_job("infer_activation", __doc__)
