"""Figures for MLflow and the README."""
