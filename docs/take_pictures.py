"""Takes the documents' pictures anew: a sweep in a terminal, its page, its note and its views.

    python docs/take_pictures.py NAME [--folder FOLDER] [--output FOLDER] [--run=OPTIONS]

`NAME` is a sweep that ran in the folder. With options of `run` it is run there first, in a terminal
that is recorded:

    python docs/take_pictures.py night --folder /tmp/night --run="--space cnn --dataset mnist"

What the terminal showed stays in the folder as `NAME-terminal.json`, so that all pictures can be
taken again without another sweep: leave `--run` out.

Needs Chromium, and tmux for the recording; nothing is sent anywhere.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI as THEME
from rich.text import Text

from sweeps.history.recorded_sweep import read_sweep
from sweeps.state.paths import SweepPaths

ROOT = Path(__file__).parents[1]
START_SECONDS, DRAW_MS, POLL_SECONDS = 120.0, 60_000, 1.0
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
KERAS_SWEEPS = (sys.executable, "-c", "from sweeps.cli.main import console_main; console_main()")
COLUMNS, LINES = 100, 36
LASTING_SECONDS = 600
NUM_FRAMES = 20
"""Of the recording: Chromium draws them below each other, on a page of 16,384 pixels at most."""
FRAME_WIDTH, LINE_HEIGHT, MARGIN = 880, 18, 16
FRAME_HEIGHT = LINES * LINE_HEIGHT + 2 * MARGIN
FRAME_MS, LAST_FRAME_MS = 700, 6_000
NUM_COLOURS = 128
MLFLOW_SHARE = 0.745
"""What MLflow's pages take of a window; its assistant opens beside them in a new browser."""


def main() -> int:
    """Takes them; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", help="of the sweep")
    parser.add_argument("--folder", default=".", help="where it ran, or is to run (default: here)")
    parser.add_argument("--output", default=str(ROOT / "docs" / "images"))
    parser.add_argument(
        "--run", type=shlex.split, metavar="OPTIONS", help="run it first, with these options"
    )
    arguments = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"error: needs one of {', '.join(BROWSERS)} on the path.", file=sys.stderr)
        return 2
    if arguments.run and shutil.which("tmux") is None:
        print("error: to record a terminal tmux must be on the path.", file=sys.stderr)
        return 2
    folder, output = Path(arguments.folder).resolve(), Path(arguments.output).resolve()
    frames = folder / f"{arguments.name}-terminal.json"
    if arguments.run:
        folder.mkdir(parents=True, exist_ok=True)
        options = [*arguments.run, "--name", arguments.name]
        frames.write_text(json.dumps(recorded(options, folder)), encoding="utf-8")
    if frames.exists():
        shown = json.loads(frames.read_text(encoding="utf-8"))
        write_recording(browser, chosen(shown), output)
    take_pages(browser, arguments.name, folder, output)
    return 0


def take_pages(browser: str, name: str, folder: Path, output: Path) -> None:
    """The sweep's own page, and MLflow's pages of it."""
    subprocess.run([*KERAS_SWEEPS, "report", name], cwd=folder, check=True)
    paths = SweepPaths(folder / ".sweeps", name)
    _take(browser, paths.report.as_uri(), output / "report.png", 1100, 1660)
    server = subprocess.Popen(
        [*KERAS_SWEEPS, "ui", name, "--no-browser"], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        charts = _address(server, name)
        _take(browser, charts, output / "mlflow-charts.png", 1900, 1230, MLFLOW_SHARE)
        table = charts.replace("&compareRunsMode=CHART", "")
        _take(browser, table, output / "mlflow-table.png", 1900, 700, MLFLOW_SHARE)
        note = run_page(charts, read_sweep(paths).run_id)
        _take(browser, note, output / "mlflow-note.png", 1900, 760, MLFLOW_SHARE)
    finally:
        server.terminate()
        server.wait()


def run_page(charts: str, run_id: str) -> str:
    """MLflow's page of a run, by the address of a page of its experiment."""
    found = re.match(r"(.*#/experiments/\d+)/runs\?(workflowType=\w+)", charts)
    if found is None:
        raise SystemExit(f"error: {charts} is no page of an experiment's runs")
    return f"{found[1]}/runs/{run_id}?{found[2]}"


def recorded(options: Sequence[str], folder: Path) -> list[str]:
    """Runs a sweep in a terminal of its own; returns what the terminal showed, each change once."""
    line = shlex.join(["keras-sweeps", "run", *options])
    frames: list[str] = []
    with tempfile.TemporaryDirectory() as place:
        # A server of its own: one that is about to exit would refuse the next recording.
        tmux = ["tmux", "-S", str(Path(place) / "tmux"), "-f", os.devnull]
        status = Path(place) / "status"
        # The terminal must outlive the command, or what it showed last could not be read.
        script = (
            f"echo {shlex.quote(f'$ {line}')}; {shlex.join([*KERAS_SWEEPS, 'run', *options])}; "
            f"echo $? > {shlex.quote(str(status))}.new; mv {shlex.quote(str(status))}.new "
            f"{shlex.quote(str(status))}; exec sleep {LASTING_SECONDS}"
        )
        size = ["-x", str(COLUMNS), "-y", str(LINES)]
        subprocess.run([*tmux, "new-session", "-d", *size, "-c", str(folder), script], check=True)
        try:
            is_over = False
            while not is_over:
                time.sleep(POLL_SECONDS)
                is_over = status.exists()
                frame = _told(tmux, "capture-pane", "-e", "-p")
                if not frames or frame != frames[-1]:
                    frames.append(frame)
        finally:
            subprocess.run([*tmux, "kill-server"], check=False, capture_output=True)
        if status.read_text().strip() != "0":
            shown = Text.from_ansi(frames[-1]).plain
            raise SystemExit(f"error: the sweep did not end well:\n{shown}")
    return frames


def _told(tmux: Sequence[str], *command: str) -> str:
    return subprocess.run([*tmux, *command], check=True, capture_output=True, text=True).stdout


def chosen(frames: Sequence[str]) -> list[str]:
    """The last one, and as many others as are shown, at equal distances."""
    num = min(NUM_FRAMES, len(frames))
    return [frames[round(k * (len(frames) - 1) / max(1, num - 1))] for k in range(num)]


def write_recording(browser: str, frames: Sequence[str], output: Path) -> None:
    """Writes `terminal.gif`, and one of the later frames as `terminal.png`."""
    with tempfile.TemporaryDirectory() as folder:
        page, drawn = Path(folder) / "frames.html", Path(folder) / "frames.png"
        page.write_text(_frames_page(frames), encoding="utf-8")
        _take(browser, page.as_uri(), drawn, FRAME_WIDTH, FRAME_HEIGHT * len(frames))
        with Image.open(drawn) as all_frames:
            pictures = [
                all_frames.crop((0, top, FRAME_WIDTH, top + FRAME_HEIGHT))
                for top in range(0, FRAME_HEIGHT * len(frames), FRAME_HEIGHT)
            ]
    durations = [FRAME_MS] * (len(pictures) - 1) + [LAST_FRAME_MS]
    pictures[0].save(
        output / "terminal.gif", save_all=True, append_images=pictures[1:], duration=durations,
        loop=0, optimize=True,
    )  # fmt: skip
    pictures[len(pictures) * 3 // 4].save(output / "terminal.png", optimize=True)
    print(output / "terminal.gif", output / "terminal.png", sep="\n")


def _frames_page(frames: Sequence[str]) -> str:
    shown = []
    for frame in frames:
        console = Console(record=True, width=COLUMNS, file=io.StringIO(), color_system="truecolor")
        console.print(Text.from_ansi(frame), soft_wrap=True)
        shown.append(
            console.export_html(theme=THEME, inline_styles=True, code_format="<pre>{code}</pre>")
        )
    return (
        f"<meta charset='utf-8'><style>body {{ margin: 0; color: {THEME.foreground_color.hex}; "
        f"background: {THEME.background_color.hex}; }} "
        f"pre {{ margin: 0; padding: {MARGIN}px; height: {FRAME_HEIGHT}px; box-sizing: border-box; "
        f"overflow: hidden; font: 14px/{LINE_HEIGHT}px 'DejaVu Sans Mono', monospace; }}</style>"
        + "".join(shown)
    )


def _address(server: subprocess.Popen[str], name: str) -> str:
    """The page that `ui` prints."""
    deadline = time.monotonic() + START_SECONDS
    assert server.stdout is not None
    for line in server.stdout:
        found = re.match(rf"{re.escape(name)}\s+(http\S+)", line)
        if found:
            return found[1]
        if time.monotonic() > deadline:
            break
    raise SystemExit("error: MLflow did not start")


def _take(
    browser: str, address: str, path: Path, width: int, height: int, share: float = 1.0
) -> None:
    """Draws a page; of its width only a share from the left is kept."""
    subprocess.run(
        [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         # As with a mouse that lies elsewhere: else MLflow shows the tools over its charts.
         "--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,"
         "availablePointerTypes=4",
         f"--window-size={width},{height}", f"--virtual-time-budget={DRAW_MS}",
         f"--screenshot={path}", address],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    with Image.open(path) as picture:
        kept = picture.crop((0, 0, round(width * share), height))
    small = kept.convert("RGB").quantize(NUM_COLOURS)
    small.save(path, optimize=True)
    print(path)


if __name__ == "__main__":
    sys.exit(main())
