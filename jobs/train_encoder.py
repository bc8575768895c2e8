"""Train the semantic encoder. Stages before it run first where their output is missing.

python -m jobs.train_encoder demo
"""

from slams_ray.cli.command import run_pipeline_job

if __name__ == "__main__":
    run_pipeline_job("train_encoder", __doc__)
