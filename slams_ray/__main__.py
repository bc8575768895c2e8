"""`python -m slams_ray` is the command `slams`."""

from slams_ray.cli.main import main

main()
