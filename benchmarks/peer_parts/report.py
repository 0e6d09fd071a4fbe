"""Writes the tables and plots of all results into `docs/benchmarks.md`, between its markers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from peer_parts.readme import readme_lines
from peer_parts.results import by_side, table_of
from peer_parts.search import LEVELS
from peer_parts.whole_sweeps import OURS, SIDES

DOCS = Path(__file__).parents[2] / "docs"
PAGE = "benchmarks.md"
LEAST_ERROR = 1e-3
"""What an error of nothing is drawn as: the axis is logarithmic."""
Line = Mapping[str, Any]


def write_report(lines: Sequence[Line], parts: Mapping[str, Any], folder: Path = DOCS) -> None:
    """Writes what is between `<!-- NAME -->` and `<!-- end of NAME -->` anew, in page and README.

    Args:
        lines: of the file of results.
        parts: as `PARTS` of `peers.py`.
        folder: has the page, and `images` for the plots; the README is beside it.
    """
    page = folder / PAGE
    text = page.read_text(encoding="utf-8")
    for name, part in parts.items():
        text = filled(text, name, part_lines(name, part, lines, folder / "images"))
    page.write_text(filled(text, "settings", settings_lines()), encoding="utf-8")
    readme = folder.parent / "README.md"
    if readme.exists():
        text = readme.read_text(encoding="utf-8")
        readme.write_text(filled(text, "peers", readme_lines(lines), tight=True), encoding="utf-8")


def filled(text: str, name: str, lines: Iterable[str], *, tight: bool = False) -> str:
    """The page with these lines between the markers of a name; as it is where it has none.

    Args:
        tight: without blank lines around them; the README is one page.
    """
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    new = "\n".join([begin, *lines, end] if tight else [begin, "", *lines, "", end])
    return re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: new, text, flags=re.DOTALL)


def part_lines(name: str, part: Any, lines: Sequence[Line], images: Path) -> list[str]:
    """A table for each set of options with which the part was measured, its source, and plots."""
    own = [line for line in lines if line["part"] == name]
    written: list[str] = []
    for trials, options, group in grouped(own):
        found = by_side(part, group)
        written += [""] if written else []
        written += [*table_of(part, found, options), "", caption(trials, options, group)]
        if name == "search":
            written += ["", search_plot(found, options, images)]
    if name == "scale" and own:
        written += ["", scale_plot(by_side(part, own), images)]
    return written or ["Not measured yet."]


def grouped(lines: Iterable[Line]) -> list[tuple[int, dict[str, Any], list[Line]]]:
    """Lines of the same trials and options together: trials, options, lines."""
    groups: list[tuple[int, dict[str, Any], list[Line]]] = []
    for line in lines:
        key = line["trials"], line.get("options", {})
        for trials, options, group in groups:
            if (trials, options) == key:
                group.append(line)
                break
        else:
            groups.append((*key, [line]))
    return groups


def caption(trials: int, options: Mapping[str, Any], group: Sequence[Line]) -> str:
    """What a table was taken with: options, n, machine, versions, days."""
    counts = Counter(line["side"] for line in group)
    few, most = min(counts.values()), max(counts.values())
    given = [f"{trials:,} {'trial' if trials == 1 else 'trials'}"] if trials else []
    given += [f"{name} {value}" for name, value in options.items()]
    versions: dict[str, list[str]] = {}
    for line in group:
        for package, version in line["versions"].items():
            versions.setdefault(package, [])
            if version not in versions[package]:
                versions[package].append(version)
    days = sorted({line["at"][:10] for line in group})
    commits = sorted({line["commit"] for line in group if "commit" in line})
    loads = [line["load"] for line in group if "load" in line]
    texts = [
        *given, f"n = {few}" if few == most else f"n = {few} to {most}",
        f"{group[0]['cores']} cores" + (f" ({p})" if (p := group[-1].get("processor")) else ""),
        *([f"load average before each {min(loads):.1f} to {max(loads):.1f}"] if loads else []),
        *([f"ours at {' and '.join(commits)}"] if commits else []),
        ", ".join(f"{package} {' and '.join(found)}" for package, found in versions.items()),
        days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}",
    ]  # fmt: skip
    return "; ".join(texts) + "."


def settings_lines() -> list[str]:
    """A Markdown table: what each side of a whole sweep is given."""
    rows = [
        f"| {name} | {f'`benchmarks/peers/{side.program}`' if side.program else '`run`'} "
        f"| {side.settings} |"
        for name, side in SIDES.items()
    ]
    return ["| side | program | settings |", "| --- | --- | --- |", *rows]


def search_plot(
    found: Mapping[str, Sequence[Any]], options: Mapping[str, Any], images: Path
) -> str:
    """Draws the error of the best so far over the time, and returns Markdown that shows it."""
    dataset = str(options["dataset"])
    name = dataset.removesuffix(".npz")
    minutes = float(options["minutes"])
    file, seconds = f"peers-search-{name}-{minutes:g}-minutes.svg", 60 * minutes
    figure, axes = _figure("seconds since the command", "validation error of the best so far")
    for side, results in found.items():
        color = None
        for curve in (result["curve"] for result in results if result["curve"]):
            times, values = zip(*curve, (seconds, curve[-1][1]), strict=True)
            (line,) = axes.step(
                times, [max(1.0 - value, LEAST_ERROR) for value in values], where="post",
                color=color, label=side if color is None else None,
                linewidth=2.2 if side == OURS else 1.2,
            )  # fmt: skip
            color = line.get_color()
    for level in LEVELS.get(dataset, ()):
        axes.axhline(1.0 - level, color="0.6", linestyle=":", linewidth=1)
    axes.set_yscale("log")
    _save(figure, axes, images / file)
    title = f"Validation error of the best so far on {name}, by wall seconds, and levels"
    return f"![{title}](images/{file})"


def scale_plot(found: Mapping[str, Sequence[Any]], images: Path) -> str:
    """Draws what a trial costs by the trials before it, and returns Markdown that shows it."""
    file = "peers-scale.svg"
    figure, axes = _figure("trials", "milliseconds of a trial (wall)")
    for side, results in found.items():
        values: dict[str, list[float]] = {}
        for result in results:
            for mark, (wall, _) in result["milliseconds"].items():
                values.setdefault(mark, []).append(wall)
        marks = sorted(values, key=int)
        means = [sum(values[mark]) / len(values[mark]) for mark in marks]
        axes.plot([int(mark) for mark in marks], means, marker="o", markersize=3, label=side)
    axes.set(xscale="log", yscale="log")
    _save(figure, axes, images / file)
    return f"![Milliseconds of a trial by the number of trials before it](images/{file})"


def _figure(x: str, y: str) -> tuple[Any, Any]:
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "peers"
    figure = Figure(figsize=(7.5, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=x, ylabel=y)
    return figure, axes


def _save(figure: Any, axes: Any, path: Path) -> None:
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
