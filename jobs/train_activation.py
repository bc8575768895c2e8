"""Train the CAM classifier and the activation network; missing earlier stages run first.

python -m jobs.train_activation demo
"""

from slams_ray.cli.command import run_pipeline_job

if __name__ == "__main__":
    run_pipeline_job("train_activation", __doc__)
