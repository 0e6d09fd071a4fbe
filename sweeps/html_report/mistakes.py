"""What the best models say of the validation images: confusions, mistakes, models side by side.

Each kept model left its answers when it was trained (`pipelines.evaluation.predictions`), so that
nothing is predicted, and no backend imported, to write a page.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from html import escape

import numpy as np

from pipelines.data.prepared import DataLostError, PreparedData, open_prepared
from pipelines.evaluation.predictions import Predictions, read_predictions
from pipelines.images.thumbnails import thumbnail
from sweeps.formatting import count
from sweeps.history.recorded_sweep import RecordedSweep
from sweeps.html_report.figures import RED, Figure

NUM_MODELS = 4
NUM_MISTAKES = 12
NUM_COMPARED = 8
MAX_CLASSES = 60
"""Above that a matrix cannot be read, and takes megabytes; what is confused most is said still."""
NUM_PAIRS = 5
TEXT_CLASSES = 20


@dataclass(frozen=True)
class Answers:
    """What models say of the same validation images, the winner first.

    Attributes:
        names: of the trials.
        labels: (n,), indices of classes.
    """

    names: tuple[str, ...]
    said: tuple[Predictions, ...]
    labels: np.ndarray
    pixels: np.ndarray
    class_names: tuple[str, ...]


def answers_of(sweep: RecordedSweep, winner: int | None = None) -> Answers | None:
    """What the best kept models say; None where none left its answers, or the data are gone.

    Args:
        winner: the trial that comes first; None for the best of the search.
    """
    found: dict[str, Predictions] = {}
    num = sweep.data.get("profile", {}).get("num_images", {}).get("validation", 0)
    for trial in sorted(sweep.ranking(), key=lambda trial: trial.number != winner):
        read = read_predictions(sweep.paths.answers(trial.number), num)
        if read is not None and len(found) < NUM_MODELS:
            found[trial.name] = read
    data = _data(sweep) if found else None
    if data is None:
        return None
    try:
        pixels, labels = data.arrays("validation")
    except DataLostError:
        return None
    if len(labels) != num:
        return None
    return Answers(tuple(found), tuple(found.values()), labels, pixels, data.class_names)


def _data(sweep: RecordedSweep) -> PreparedData | None:
    content = sweep.file.data_fingerprint
    try:
        data = open_prepared(sweep.paths.data, sweep.file.data_name, content)
    except OSError:
        return None
    return data if data is not None and data.fingerprint == content else None


def confusion(answers: Answers) -> Figure | None:
    """The winner's confusion matrix; None of too many classes to be read."""
    names, num = answers.class_names, len(answers.class_names)
    if num > MAX_CLASSES:
        return None
    matrix = _matrix(answers)
    shares = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    np.fill_diagonal(shares, 0.0)  # What is right would hide what is wrong.
    labels = [str(name) for name in names]
    texts = [[f"{cell:,}" if cell else "" for cell in row] for row in matrix.tolist()]
    return Figure(
        f"What {answers.names[0]} confuses",
        f"{_mistaken(answers)} {pairs_text(answers)} The darker, the larger the share of a label's "
        "images; what is right is not coloured.",
        [
            {"type": "heatmap", "z": np.round(shares, 4).tolist(), "x": labels, "y": labels,
             "customdata": matrix.tolist(), "colorscale": [[0, "rgba(208,72,72,0)"], [1, RED]],
             "zmin": 0, "zmax": max(0.005, float(shares.max())), "showscale": False, "xgap": 1,
             "ygap": 1, "hovertemplate": "%{y} taken for %{x}: %{customdata}<extra></extra>",
             **({"text": texts, "texttemplate": "%{text}"} if num <= TEXT_CLASSES else {})}
        ],
        {"xaxis": {"title": {"text": "predicted"}, "type": "category", "tickmode": "linear",
                   "showgrid": False},
         "yaxis": {"title": {"text": "label"}, "type": "category", "autorange": "reversed",
                   "tickmode": "linear", "showgrid": False}},
        height=min(900, 190 + 26 * num),
    )  # fmt: skip


def _matrix(answers: Answers) -> np.ndarray:
    num = len(answers.class_names)
    cells = answers.labels * num + answers.said[0].classes
    return np.bincount(cells, minlength=num**2).reshape(num, num)


def _mistaken(answers: Answers) -> str:
    wrong = int((answers.said[0].classes != answers.labels).sum())
    return f"{count(wrong, 'mistake')} on {len(answers.labels):,} validation images."


def pairs_text(answers: Answers) -> str:
    """`Most often: 4 taken for 9 (12 times), ...`; empty without a mistake."""
    said, labels = answers.said[0].classes, answers.labels
    wrong = np.flatnonzero(said != labels)
    pairs, times = np.unique(
        np.stack([labels[wrong], said[wrong]], axis=1), axis=0, return_counts=True
    )
    order = np.argsort(-times, kind="stable")[:NUM_PAIRS]
    texts = [
        f"{_name(answers, pairs[k][0])} taken for {_name(answers, pairs[k][1])} "
        f"({count(int(times[k]), 'time')})"
        for k in order
    ]
    return f"Most often: {', '.join(texts)}." if texts else ""


def mistakes_section(answers: Answers) -> str:
    """The images that the winner is most surely wrong about, as HTML."""
    said, labels = answers.said[0], answers.labels
    wrong = np.flatnonzero(said.classes != labels)
    worst = wrong[np.argsort(-said.confidence[wrong], kind="stable")][:NUM_MISTAKES]
    if not len(worst):
        return ""
    shown = "".join(
        f"<figure>{_picture(answers, k)}<figcaption>{escape(_name(answers, labels[k]))} taken for "
        f"<b>{escape(_name(answers, said.classes[k]))}</b><br>{said.confidence[k]:.0%} sure"
        "</figcaption></figure>"
        for k in worst
    )
    pairs = "" if len(answers.class_names) <= MAX_CLASSES else f" {pairs_text(answers)}"
    return (
        f"<section><h2>Most confident mistakes of {escape(answers.names[0])}</h2>"
        f"<p class='caption'>{_mistaken(answers)}{escape(pairs)} A label may be wrong, too.</p>"
        f"<div class='pictures'>{shown}</div></section>"
    )


def comparison_section(answers: Answers) -> str:
    """The images that the best models disagree about most surely, as HTML."""
    classes = np.stack([one.classes for one in answers.said])
    right = classes == answers.labels
    differ = np.flatnonzero(right.any(axis=0) & ~right.all(axis=0))
    if len(answers.names) < 2:
        return ""
    sure = np.stack([one.confidence for one in answers.said])
    surest = np.where(right, 0.0, sure).max(axis=0)
    chosen = differ[np.argsort(-surest[differ], kind="stable")][:NUM_COMPARED]
    num_wrong = [int((~row).sum()) for row in right]
    all_wrong = int((~right).all(axis=0).sum())
    heads = "".join(
        f"<th>{escape(name)}<br>{count(number, 'mistake')}</th>"
        for name, number in zip(answers.names, num_wrong, strict=True)
    )
    rows = "".join(
        f"<tr><td>{_picture(answers, k)}</td><td>{escape(_name(answers, answers.labels[k]))}</td>"
        + "".join(
            f"<td class='{'right' if right[m, k] else 'failed'}'>"
            f"{escape(_name(answers, classes[m, k]))} ({sure[m, k]:.0%})</td>"
            for m in range(len(answers.names))
        )
        + "</tr>"
        for k in chosen
    )
    return (
        "<section><h2>The same pictures through the best models</h2><p class='caption'>They "
        f"disagree about {count(len(differ), 'image')}; {count(all_wrong, 'image')} "
        f"{'is' if all_wrong == 1 else 'are'} wrong for all of them.</p><div class='scroll'>"
        f"<table class='side'><thead><tr><th></th><th>label</th>{heads}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _picture(answers: Answers, index: int) -> str:
    content = base64.b64encode(thumbnail(np.asarray(answers.pixels[index]))).decode()
    label = escape(_name(answers, answers.labels[index]), quote=True)
    return f"<img alt='validation image {index}, {label}' src='data:image/png;base64,{content}'>"


def _name(answers: Answers, index: int) -> str:
    return str(answers.class_names[int(index)])
