"""`python sweeps/ui.py [NAME]`: the command `keras-sweeps ui` as a script."""

import sys

try:
    from sweeps.cli.main import script
except ModuleNotFoundError as error:
    print(
        f"error: keras-sweeps must be installed first, '{error.name}' is missing. In the clone: "
        "pip install -c constraints.txt -e .",
        file=sys.stderr,
    )
    sys.exit(2)

if __name__ == "__main__":
    script("ui", __file__)
