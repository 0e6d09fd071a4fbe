"""What of a user's environment does not reach our own processes."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest

from pipelines.runtime.surroundings import settle_surroundings, warnings_shown

SETTLED = """
import os, sys, warnings
from pipelines.runtime.surroundings import settle_surroundings
settle_surroundings()
warnings.warn("old", DeprecationWarning)
warnings.warn("shown")
print(sys.warnoptions, "PYTHONWARNINGS" in os.environ)
"""


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ({"MPLBACKEND": "module://matplotlib_inline.backend_inline"}, {}),
        ({"COLUMNS": "²"}, {}),
        ({"COLUMNS": "", "LINES": "-3"}, {}),
        ({"COLUMNS": "72", "LINES": "24"}, {"COLUMNS": "72", "LINES": "24"}),
        ({"KERAS_MAX_EPOCHS": "1", "KERAS_MAX_STEPS_PER_EPOCH": "x"}, {}),
        ({"PYTHONWARNINGS": "default,error::UserWarning"}, {}),
        ({"PYTHONWARNINGS": "e"}, {}),
        ({"PYTHONWARNINGS": "ignore"}, {"PYTHONWARNINGS": "ignore"}),
        ({"HOME": "/home/me"}, {"HOME": "/home/me"}),
    ],
)
def test_what_is_meant_for_other_programs_is_taken_out_and_the_rest_stays(given, left):
    environment = dict(given)
    settle_surroundings(environment)
    assert environment == {"MPLBACKEND": "agg", **left}


@pytest.mark.parametrize(("option", "left"), [("error", "[]"), ("ignore", "['ignore']")])
def test_warnings_are_shown_instead_of_ending_a_process(option, left):
    done = subprocess.run(
        [sys.executable, "-W", option, "-c", SETTLED], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == f"{left} False\n", done.stderr
    assert "old" not in done.stderr
    assert ("shown" in done.stderr) == (option == "error")


def test_while_we_work_a_warning_is_no_error_and_afterwards_it_is_one_again():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="hidden")
        with warnings_shown():
            warnings.warn("hidden", stacklevel=1)
            with pytest.warns(UserWarning, match="shown"):
                warnings.warn("shown", stacklevel=1)
        with pytest.raises(UserWarning, match="mine"):
            warnings.warn("mine", stacklevel=1)
