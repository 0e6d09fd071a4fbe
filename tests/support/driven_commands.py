"""Commands run one after the other in one process of their own, with what they printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

DRIVER = Path(__file__).with_name("drivers") / "replay_driver.py"


def drive(folder: Path, commands: dict[str, list[str]]) -> dict[str, Any]:
    (folder / "commands.json").write_text(json.dumps(list(commands.values())))
    hidden = ("SWEEPS_DATA_DIR", "MLFLOW_TRACKING_URI")
    done = subprocess.run(
        [sys.executable, str(DRIVER), "commands.json", "--commands-only"],
        cwd=folder, capture_output=True, text=True, timeout=550,
        env={name: value for name, value in os.environ.items() if name not in hidden},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads((folder / "results.json").read_text())
    return {
        **dict(zip(commands, results["commands"], strict=True)),
        "imported": results["imported"],
    }
