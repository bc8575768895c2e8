"""Measure one part of the system, as ratios to named alternatives in the same run.

python -m jobs.benchmark crf --voc-dir VOC2012
"""

from slams_ray.cli.benchmark import run_benchmark

if __name__ == "__main__":
    run_benchmark(__doc__)
