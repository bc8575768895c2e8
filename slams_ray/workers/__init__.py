"""Work of one Ray process: its networks and mappers, on the device that Ray assigned.

A process of Ray Data imports one of these modules and nothing of the stages, which would load Ray
Train and every system: 3 CPU seconds and 400 MB in each process.
"""
