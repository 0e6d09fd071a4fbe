"""What any point of a space would report, after some that were recorded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from replay_parts.curves import Curve
from search_spaces.hyperparameters import Params
from search_spaces.space import Space


class Surrogate:
    """Says what any point of a space would report, after some that were recorded.

    The logarithms of the errors at all reports, and of the seconds of an epoch, are what is fitted,
    to numbers as they are, the logarithm of those that a space draws so, and choices as they come.
    """

    def __init__(
        self, space: Space, lines: Sequence[Mapping[str, Any]], curves: Sequence[Curve]
    ) -> None:
        from sklearn.ensemble import ExtraTreesRegressor

        self._space = space
        whole = [k for k, line in enumerate(lines) if not line["failed"]]
        self._curves = [curves[k] for k in whole]
        self._columns = _columns([lines[k]["params"] for k in whole])
        self._x = np.array([self._row(lines[k]["params"]) for k in whole])
        self._keys = list(self._curves[0].values)
        self._y = np.array([self._targets(curve) for curve in self._curves])
        self._make = partial(ExtraTreesRegressor, 300, min_samples_leaf=2, random_state=0)
        self._model = self._make().fit(self._x, self._y)
        self._known: dict[str, Curve] = {}

    def quality(self) -> str:
        """The error of what is left out of the fit, in ten parts."""
        from scipy.stats import spearmanr
        from sklearn.model_selection import KFold, cross_val_predict

        parts = KFold(10, shuffle=True, random_state=0)
        left_out = cross_val_predict(self._make(), self._x, self._y, cv=parts)
        texts = []
        for place, name in (
            (0, "first report"),
            (len(self._keys) - 1, "end"),
            (-2, "epoch seconds"),
        ):
            off = self._y[:, place] - left_out[:, place]
            correlation = spearmanr(self._y[:, place], left_out[:, place]).statistic
            texts.append(
                f"{name}: rank correlation {correlation:.2f}, off by a factor of "
                f"{math.exp(float(np.median(np.abs(off)))):.2f} (median)"
            )
        return "surrogate, left out of the fit: " + "; ".join(texts)

    def curve(self, params: Params) -> Curve:
        """What a point would report."""
        key = str(sorted(params.items()))
        if key not in self._known:
            (found,) = self._model.predict([self._row(params)])
            values = dict(zip(self._keys, 1 - np.exp(found[: len(self._keys)]), strict=True))
            both = {epochs: (float(value), float(value)) for epochs, value in values.items()}
            early = {epochs: value for epochs, value in both.items() if epochs < 1}
            seconds = [float(value) for value in np.exp(found[-2:])]
            self._known[key] = Curve(both, early, *seconds)
        return self._known[key]

    def _targets(self, curve: Curve) -> list[float]:
        errors = [math.log(max(1e-4, 1 - value)) for value, _ in curve.values.values()]
        return [*errors, math.log(curve.epoch_seconds), math.log(curve.validation_seconds)]

    def _row(self, params: Params) -> list[float]:
        row = []
        for name, choices in self._columns.items():
            value = params.get(name)
            if choices is None:
                row.append(-1.0 if value is None else float(value))
            else:
                row += [float(value == choice) for choice in choices]
        return row


def _columns(points: Sequence[Params]) -> dict[str, list[Any] | None]:
    """Each parameter with its choices; None for a number."""
    names = dict.fromkeys(name for params in points for name in params)
    columns: dict[str, list[Any] | None] = {}
    for name in names:
        values = {params[name] for params in points if name in params}
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        columns[name] = None if numbers else sorted(values, key=str)
    return columns
