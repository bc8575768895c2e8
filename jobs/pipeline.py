"""From image-level labels to mIoU: all eight stages.

python -m jobs.pipeline demo
python -m jobs.pipeline voc12 --data.root /data/VOC2012 --compute.train-workers 4
"""

from slams_ray.cli.command import run_pipeline_job

if __name__ == "__main__":
    run_pipeline_job("evaluate", __doc__)
