"""Use of Ray and MLflow. Nothing here depends on segmentation."""
