"""Many pipelines beside one another: methods over seeds, losses switched off one by one."""
