"""`python pipelines/explore.py --dataset mnist`: the command `keras-sweeps explore` as a script."""

from sweeps.cli import script

if __name__ == "__main__":
    script("explore", __file__)
