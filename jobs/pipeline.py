"""Run the pipeline from image-level labels to mIoU: all stages, or those up to a given one.

python -m jobs.pipeline demo
python -m jobs.pipeline voc12 --data.root /data/VOC2012 --compute.train-workers 4
python -m jobs.pipeline demo --until refine
"""

from slams_ray.cli.pipeline import run_pipeline

if __name__ == "__main__":
    run_pipeline(__doc__)
