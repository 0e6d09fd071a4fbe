"""`python sweeps/run.py --space cnn`: the command `keras-sweeps run` as a script."""

from sweeps.cli import script

if __name__ == "__main__":
    script("run", __file__)
