"""Train the segmentation network on pseudo labels; missing earlier stages run first.

python -m jobs.train_segmentation demo
"""

from slams_ray.cli.command import run_pipeline_job

if __name__ == "__main__":
    run_pipeline_job("train_segmentation", __doc__)
