"""The curve of a sweep's best value as one picture, for pages without scripts."""

from __future__ import annotations

import io

from pipelines.evaluation.figure_style import in_own_style
from sweeps.history.recorded_sweep import RecordedSweep
from sweeps.html_report.figures import best_so_far

INCHES = (7.2, 2.8)


@in_own_style
def curve_picture(sweep: RecordedSweep) -> str:
    """The best so far over minutes as SVG; empty where nothing was measured."""
    figure = best_so_far([sweep], over="minutes")
    if figure is None:
        return ""
    from matplotlib.figure import Figure  # No pyplot: nothing is global.

    drawn = Figure(figsize=INCHES, layout="constrained")
    axes = drawn.add_subplot()
    trace = figure.data[0]
    axes.step(trace["x"], trace["y"], where="post", marker="o", markersize=3)
    for shape, note in zip(figure.layout["shapes"], figure.layout["annotations"], strict=True):
        axes.axhline(shape["y0"], color="tab:orange", linestyle=":", linewidth=1)
        axes.annotate(
            note["text"], (0, shape["y0"]), (4, 2), xycoords=("axes fraction", "data"),
            textcoords="offset points", fontsize=8, color="tab:orange",
        )  # fmt: skip
    # The first third of the improvements may be steep, and would flatten the rest.
    shown = [*trace["y"][len(trace["y"]) // 3 :], *(s["y0"] for s in figure.layout["shapes"])]
    margin = (max(shown) - min(shown)) * 0.1 or 0.01
    axes.set_ylim(min(shown) - margin, max(shown) + margin)
    axes.set_xlim(left=0)
    axes.set_xlabel(figure.layout["xaxis"]["title"]["text"])
    axes.set_ylabel(sweep.objective.metric)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    out = io.StringIO()
    drawn.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()
