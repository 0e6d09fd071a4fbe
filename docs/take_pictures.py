"""Takes the pictures of the documents anew: a sweep's page, and its saved view in MLflow.

    python docs/take_pictures.py NAME --folder FOLDER [--output docs/images]

`NAME` is a sweep that ran in FOLDER. Needs Chromium; nothing is sent anywhere.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
START_SECONDS, DRAW_MS = 120.0, 60_000
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> int:
    """Takes them; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", help="of a sweep that has ended")
    parser.add_argument("--folder", default=".", help="where it ran (default: here)")
    parser.add_argument("--output", default=str(ROOT / "docs" / "images"))
    arguments = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print(f"error: needs one of {', '.join(BROWSERS)} on the path.", file=sys.stderr)
        return 2
    folder, output = Path(arguments.folder).resolve(), Path(arguments.output).resolve()
    command = [sys.executable, "-c", "from sweeps.cli.main import console_main; console_main()"]
    subprocess.run([*command, "report", arguments.name], cwd=folder, check=True)
    page = folder / ".sweeps" / "sweeps" / arguments.name / "report.html"
    _take(browser, page.as_uri(), output / "report.png", 1100, 1500)
    server = subprocess.Popen(
        [*command, "ui", arguments.name, "--no-browser"], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        charts = _address(server, arguments.name)
        _take(browser, charts, output / "mlflow-charts.png", 1900, 1100)
        table = charts.replace("&compareRunsMode=CHART", "")
        _take(browser, table, output / "mlflow-table.png", 1900, 700)
    finally:
        server.terminate()
        server.wait()
    return 0


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


def _take(browser: str, address: str, path: Path, width: int, height: int) -> None:
    subprocess.run(
        [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         f"--window-size={width},{height}", f"--virtual-time-budget={DRAW_MS}",
         f"--screenshot={path}", address],
        check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    print(path)


if __name__ == "__main__":
    sys.exit(main())
