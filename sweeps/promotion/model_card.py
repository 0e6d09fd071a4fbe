"""The model card of a registered version: what whoever uses the model has to know. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.data.prepared import PreparedData
from pipelines.models.scoring import Score
from sweeps.promotion.gate import Rule
from tracking.markdown_text import literal

_BACKGROUNDS = {
    "dark": "light on dark; images of the opposite polarity are inverted by `predict`",
    "light": "dark on light; images of the opposite polarity are inverted by `predict`",
    "mixed": "any; images are taken as they are",
}


@dataclass(frozen=True)
class Card:
    """What a card tells.

    Attributes:
        origin: name -> value: sweep, trial, run, seed, commit, versions.
        params: the active parameters.
        intervals: metric -> mean with its interval, where the sweep had finalists.
        retrained: whether the intervals belong to models that were trained without validation data.
        champion: how people call the version that it was compared with; empty without one.
        verdict: what was decided, by whom, when.
    """

    title: str
    data: PreparedData
    background: str
    origin: Mapping[str, str]
    params: Mapping[str, str]
    intervals: Mapping[str, str]
    score: Score
    rules: Sequence[Rule]
    retrained: bool = False
    champion: str = ""
    verdict: str = ""


def render_card(card: Card) -> str:
    """The card as Markdown, as MLflow shows it; whatever a name holds, it is shown as it is."""
    data, score, champion = card.data, card.score, literal(card.champion)
    height, width, channels = data.input_shape
    lines = [
        f"# {literal(card.title)}",
        "",
        f"Names one of {data.num_classes} classes of {literal(data.name)}: "
        f"{', '.join(map(literal, data.class_names))}.",
        "",
        "## Input and output",
        "",
        f"- Input: raw pixels 0 to 255, uint8, shape (n, {height}, {width}, {channels}).",
        f"- Polarity: {_BACKGROUNDS[card.background]}.",
        f"- Output: probabilities, float32, shape (n, {data.num_classes}), in the order above.",
        "- The model is a `.keras` file without Python code; it loads in Keras' safe mode.",
        "",
        "## Measured on the test split",
        "",
        *_table(("measure", "value"), _measures(card)),
        "",
        *_table(
            ("class", "recall"),
            [
                (name, f"{recall:.4f}")
                for name, recall in zip(data.class_names, score.recalls, strict=True)
            ],
        ),
        "",
        *_over_seeds(card),
        f"## Gate{f' against {champion}' if champion else ', as the first champion'}",
        "",
        *[f"- {'passed' if r.passed else 'REFUSED'}: {literal(f'{r.name}: {r.text}')}"
          for r in card.rules],
        *([f"- decision: {literal(card.verdict)}"] if card.verdict else []),
        "",
        "## Where it comes from",
        "",
        *_table(("what", "value"), list(card.origin.items())),
        "",
        "## Parameters",
        "",
        *_table(("parameter", "value"), list(card.params.items())),
        "",
        f"Data: {literal(f'{data.name}, {data.sizes()}; {data.split}')}; sha256 "
        f"`{data.fingerprint}`.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _measures(card: Card) -> list[tuple[str, str]]:
    score = card.score
    return [
        ("accuracy", f"{score.accuracy:.4f}"),
        ("loss (cross-entropy, nats)", f"{score.loss:.4f}"),
        ("one image, warm", f"{score.latency_ms:.2f} ms on {score.device}"),
        ("parameters", f"{score.num_parameters:,}"),
        ("file", f"{score.num_bytes:,} bytes"),
    ]


def _over_seeds(card: Card) -> list[str]:
    """The intervals, and which models they belong to."""
    if not card.intervals:
        return []
    models = "Models of this configuration on fresh seeds: means with their 95% intervals"
    if card.retrained:
        models += (
            ". Those models were trained without the validation images; this one was trained on "
            "them, too"
        )
    return [
        "## Over fresh seeds",
        "",
        f"{models}. The intervals tell what another seed does, not what another test split would.",
        "",
        *_table(("metric", "mean"), list(card.intervals.items())),
        "",
    ]


def _table(head: tuple[str, str], rows: Sequence[tuple[str, str]]) -> list[str]:
    cells = [
        head,
        ("---", "---"),
        *((literal(name), literal(value)) for name, value in rows),
    ]
    return [f"| {name} | {value} |" for name, value in cells]
