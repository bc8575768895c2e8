"""Faults put into a working pipeline, and what becomes of it."""
