"""Figures follow from the sweep, not from a file for other figures."""

from __future__ import annotations

import subprocess
import sys

import matplotlib

from pipelines.evaluation.figure_style import in_own_style


def test_what_a_matplotlibrc_says_does_not_count_while_we_draw():
    with matplotlib.rc_context({"text.usetex": True, "font.size": 40}):
        found = in_own_style(
            lambda: (matplotlib.rcParams["text.usetex"], matplotlib.rcParams["font.size"])
        )()
        assert found == (False, matplotlib.rcParamsDefault["font.size"])
        assert matplotlib.rcParams["font.size"] == 40


def test_what_another_thread_warns_of_is_no_fault_of_a_style():
    """Matplotlib keeps all warnings while it reads its style files, and prints them as theirs."""
    program = (
        "import warnings, matplotlib\n"
        "read = matplotlib.rc_params_from_file\n"
        "def warned(*arguments, **options):\n"
        "    warnings.warn('from another thread', stacklevel=1)\n"
        "    return read(*arguments, **options)\n"
        "matplotlib.rc_params_from_file = warned\n"
        "{before}from pipelines.evaluation.figure_style import in_own_style\n"
        "in_own_style(lambda: print('drawn'))()\n"
    )

    def ran(before: str) -> tuple[str, str]:
        done = subprocess.run(
            [sys.executable, "-c", program.format(before=before)], capture_output=True, text=True
        )
        return done.stdout, done.stderr

    assert ran("") == ("drawn\n", "")
    assert "from another thread" in ran("import matplotlib.style\n")[1], "as Matplotlib does it"
