"""Convert pickled maps of other programs (.npy, as IRN writes them) to .npz files without pickle.

python -m jobs.convert path/to/cam runs/imported
"""

from slams_ray.cli.convert import run_convert

if __name__ == "__main__":
    run_convert(__doc__)
