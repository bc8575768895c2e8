"""Semantic segmentation from image-level labels: SLAMs (arXiv 2210.12417) on Ray and MLflow."""

from slams_ray.api import load, train

__all__ = ["load", "train"]
