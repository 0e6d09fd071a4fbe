"""What `promote` prints for the use of a new champion."""

from __future__ import annotations

import pytest

from sweeps.cli.commands import promote
from sweeps.outcome import Outcome
from sweeps.promotion.promotion import PromotionResult


@pytest.mark.parametrize(
    ("trained_on", "installed", "told"),
    [
        ("tensorflow", ["tensorflow", "jax", "torch"], ""),
        ("torch", ["tensorflow", "jax", "torch"], "KERAS_BACKEND=torch "),
        ("torch", ["jax", "torch"], "KERAS_BACKEND=torch "),
        ("jax", ["jax", "torch"], "KERAS_BACKEND=jax "),
        ("tensorflow", ["torch"], "KERAS_BACKEND=torch "),
        ("torch", ["tensorflow"], ""),
    ],
)
def test_the_champion_is_served_on_its_own_backend(
    trained_on, installed, told, monkeypatch, capsys
):
    monkeypatch.setattr(promote, "installed_backends", lambda: installed)
    promote.print_result(PromotionResult(
        Outcome.DONE, "digits", 1, changed=True, tracking_uri="sqlite:///m.db", backend=trained_on
    ))  # fmt: skip
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "models serve" in line]
    assert line.startswith(f"  {told}MLFLOW_TRACKING_URI=sqlite:///m.db mlflow models serve ")
