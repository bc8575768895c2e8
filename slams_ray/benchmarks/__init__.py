"""Benchmarks: ratios of our code to a named alternative, measured in the same run."""
