"""Figures follow from the sweep, not from a file for other figures."""

from __future__ import annotations

import matplotlib

from pipelines.evaluation.figure_style import in_own_style


def test_what_a_matplotlibrc_says_does_not_count_while_we_draw():
    with matplotlib.rc_context({"text.usetex": True, "font.size": 40}):
        found = in_own_style(
            lambda: (matplotlib.rcParams["text.usetex"], matplotlib.rcParams["font.size"])
        )()
        assert found == (False, matplotlib.rcParamsDefault["font.size"])
        assert matplotlib.rcParams["font.size"] == 40
