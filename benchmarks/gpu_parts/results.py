"""What the command prints and writes: the table, the JSON, the section for `docs/gpu.md`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpu_parts.findings import Finding

JSON_FILE, MARKDOWN_FILE, LOGS = "gpu.json", "gpu.md", "logs"
STAND_IN = "stand-in on cores"
_WIDTHS = (8, 40, 28, 30, 3)
_HEADS = ("part", "what", "found", "expected", "n")
_VERDICTS = {
    ("promise", True): "holds", ("promise", False): "DOES NOT HOLD",
    ("goal", True): "reached", ("goal", False): "not reached",
    ("figure", True): "as expected", ("figure", False): "not as expected",
}  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """A part that has ended.

    Attributes:
        problem: why it did not come to its end, in one line; empty where it did.
    """

    part: str
    title: str
    seconds: float
    limit_seconds: float
    findings: tuple[Finding, ...]
    problem: str = ""

    @property
    def not_held(self) -> list[str]:
        """The promises that do not hold, by name."""
        return [f"{self.part}: {finding.name}" for finding in self.findings if finding.broken]

    @property
    def not_shown(self) -> list[str]:
        """The promises that nothing was measured of, by name, and why the part has not ended."""
        names = [f"{self.part}: {finding.name}" for finding in self.findings if finding.unproven]
        return [*names, *([f"{self.part}: {self.problem}"] * bool(self.problem))]

    @property
    def complaints(self) -> list[str]:
        """Why the exit status is 1, a line each; none where it is not."""
        lines = [f"does not hold: {name}" for name in self.not_held]
        return lines + [f"not shown to hold: {name}" for name in self.not_shown]


@dataclass(frozen=True)
class Scene:
    """Where and with what everything was measured.

    Attributes:
        card: the GPUs, or that there is none.
        images: what was trained on, for people.
        nvidia_smi: all that the program prints, by lines; for the JSON alone.
    """

    date: str
    command: str
    card: str
    driver: str
    backend: str
    versions: dict[str, str]
    num_cores: int
    commit: str
    images: str
    stand_in: bool
    nvidia_smi: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What this is a measurement of, in a few words."""
        return f"{STAND_IN if self.stand_in else self.card}, {self.backend}, {self.date[:10]}"


def number(value: float) -> str:
    """A number in three or more digits, as people read it; `inf` and `nan` as they are."""
    if not math.isfinite(value):
        return str(value)
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}"


def found_text(finding: Finding) -> str:
    """What was found, with its unit."""
    found = finding.found if isinstance(finding.found, str) else number(finding.found)
    return f"{found} {finding.unit}".strip()


def verdict(finding: Finding) -> str:
    """Whether it is as expected; empty where that is not asked."""
    if finding.unproven:
        return "NOT SHOWN"
    return "" if finding.held is None else _VERDICTS[finding.kind, finding.held]


def table_head(scene: Scene) -> str:
    """The lines above the rows."""
    line = f"{scene.title}; driver {scene.driver}; {scene.images}"
    return f"{line}\n\n{_row(_HEADS, '')}\n{'-' * len(_row(_HEADS, 'DOES NOT HOLD'))}"


def table_rows(ended: Ended) -> str:
    """The rows of a part, as short as a terminal wants them."""
    rows = [
        _row((ended.part, f.name, found_text(f), f.expected, str(f.n)), verdict(f))
        for f in ended.findings
    ]
    if ended.problem:
        rows.append(f"{ended.part:<{_WIDTHS[0]}} {ended.problem}")
    return "\n".join(rows)


def _row(cells: Sequence[str], last: str) -> str:
    cut = (
        cell if len(cell) <= width else f"{cell[: width - 3]}..."
        for cell, width in zip(cells, _WIDTHS, strict=True)
    )  # fmt: skip
    padded = (f"{cell:<{width}}" for cell, width in zip(cut, _WIDTHS, strict=True))
    return f"{' '.join(padded)} {last}".rstrip()


def write(folder: Path, scene: Scene, parts: Sequence[Ended]) -> None:
    """Writes both files, each whole or not at all; again after every part."""
    body: dict[str, Any] = {
        "what": STAND_IN if scene.stand_in else "measured on a GPU",
        **asdict(scene),
        "not_held": [name for ended in parts for name in ended.not_held],
        "not_shown": [name for ended in parts for name in ended.not_shown],
        "parts": [asdict(ended) for ended in parts],
    }
    for name, text in (
        (JSON_FILE, json.dumps(body, indent=1)),
        (MARKDOWN_FILE, _page(scene, parts)),
    ):
        partial = folder / f".{name}.part"
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(folder / name)


def _page(scene: Scene, parts: Sequence[Ended]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in scene.versions.items())
    lines = [
        f"### {scene.title[0].upper()}{scene.title[1:]}",
        "",
        *([f"A {STAND_IN}: no figure of this section is one of a GPU.", ""] * scene.stand_in),
        f"`{scene.command}` on {scene.date}: {scene.card}, driver {scene.driver}, "
        f"{scene.num_cores} cores; {versions}; commit {scene.commit}; {scene.images}.",
        "",
        "| part | what | expected | found | n | |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for ended in parts:
        for f in ended.findings:
            note = f" ({f.note})" if f.note else ""
            cells = (ended.part, f.name, f.expected, found_text(f) + note, str(f.n), verdict(f))
            lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
        if ended.problem:
            lines.append(f"| {ended.part} | {ended.problem.replace('|', '/')} | | | | |")
    return "\n".join(lines)
