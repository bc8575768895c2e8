"""One shard in, one shard out: plain callables over Arrow tables that know nothing of Ray.

A mapper takes (tables by name, payload) and returns the output table and a summary of integer
counts.
"""
