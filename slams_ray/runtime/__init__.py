"""What knows Ray and MLflow, and nothing of SLAMs."""
