"""Studies over many pipelines: systems over random seeds, and ablations of single settings."""
