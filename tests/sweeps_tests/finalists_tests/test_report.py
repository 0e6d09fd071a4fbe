"""The finalists' comparison as text."""

from __future__ import annotations

from types import SimpleNamespace

from sweeps.finalists import report
from sweeps.finalists.report import render_report


def test_the_text_fits_a_hundred_columns_and_cuts_nothing(monkeypatch):
    measured = SimpleNamespace(
        mean=0.9774, low=0.9554, high=0.9995, sd=0.0025, is_least=True, num=5
    )
    ranked = [SimpleNamespace(key=key, estimate=measured, probability_best=0.75) for key in (12, 0)]
    configurations = {
        12: SimpleNamespace(name="trial 12"),
        0: SimpleNamespace(name="trial 0 (cnn3)"),
    }
    found = SimpleNamespace(
        ranking=ranked, objective=SimpleNamespace(metric="val_balanced_accuracy"),
        test=lambda key: measured,
        file=SimpleNamespace(finalists=configurations, num_seeds=5, num_epochs=8),
    )  # fmt: skip
    monkeypatch.setattr(report, "_sentences", lambda found: ["Winner: trial 12."])
    text = render_report(found)  # type: ignore[arg-type]
    assert max(map(len, text.splitlines())) <= 100 and "…" not in text
    for words in ("trial 0 (cnn3)", "0.9554", "0.9995", "0.0025*", "75%", "Winner: trial 12."):
        assert words in text
