"""Write image shards. Stages before it run first where their output is missing.

python -m jobs.prepare demo
"""

from slams_ray.cli.command import run_pipeline_job

if __name__ == "__main__":
    run_pipeline_job("prepare", __doc__)
