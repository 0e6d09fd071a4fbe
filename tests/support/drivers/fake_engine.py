"""Stands for `docker`, `podman` and `podman-compose`: keeps what there is in a file, runs nothing.

FAKE_ENGINE names a JSON file: what there is (containers, pods, volumes, networks, images), `registry`
(whether one answers), `fails` (words -> the exit status of a command that has all of them), and
`asked`, every command so far. As engines do, it filters by a part of a name, and warns on standard
error with names that are somebody else's.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

PRECIOUS = "precious"
KINDS = {"ps": "containers", "pod": "pods", "volume": "volumes", "network": "networks"}
SAID = {
    "run first": "$PUBLIC/#/experiments/1/runs\n4 complete",
    "promote": "predicts the 360 images bit for bit the same\nchampion   mlp-digits version 1",
    "predict": json.dumps({"predictions": [{"probabilities": [0.1] * 10}]}),
    "doctor first": "4 trials, 4 runs, 12 reports: study, spool and MLflow agree",
    "doctor second": "10 trials, 10 runs, 600 reports: study, spool and MLflow agree",
    "--help": "usage: keras-sweeps",
}


def main(program: str, words: list[str]) -> int:
    path = Path(os.environ["FAKE_ENGINE"])
    there: dict[str, Any] = json.loads(path.read_text())
    there["asked"].append([program, *words])
    print(f"WARN[0000] container {PRECIOUS} is odd", file=sys.stderr)
    try:
        for named, status in there["fails"].items():
            if set(named.split()) <= set(words):
                print(f"Error: {named} fails", file=sys.stderr)
                return int(status)
        return _done(there, words)
    finally:
        path.write_text(json.dumps(there))


def _done(there: dict[str, Any], words: list[str]) -> int:
    if "compose.yaml" in " ".join(words) and "run" in words and "-d" not in words:
        _say(there, words[words.index("sweep-cpu") + 1 :] if "sweep-cpu" in words else [])
    elif words[0] in KINDS and "--format" in words:
        print("\n".join(there[KINDS[words[0]]]))
    elif words[0] in KINDS and words[1] == "rm":
        there[KINDS[words[0]]].remove(words[-1])
    elif words[0] == "rm":
        if words[-1] in there["containers"]:
            there["containers"].remove(words[-1])
    elif words[:2] == ["image", "inspect"]:
        if "--format" in words:
            print(7_100_000_000)
        return 0 if words[-1] in there["images"] else 1
    elif words[0] == "pull":
        if not there["registry"]:
            print("Error: no such host", file=sys.stderr)
            return 125
        there["images"][words[-1]] = ""
    elif words[0] == "build":
        label = next(word for word in words if word.startswith("TRIAL=")).removeprefix("TRIAL=")
        there["images"][words[words.index("--tag") + 1]] = label
        there["images"][f"nameless-{len(there['images'])}"] = label
    elif words[0] == "images":
        wanted = next((w.rpartition("=")[2] for w in words if w.startswith("label=")), None)
        print("\n".join(name for name, label in there["images"].items()
                        if name.startswith("nameless") and wanted in (None, label)))  # fmt: skip
    elif words[0] == "rmi":
        if there["images"].pop(words[-1], None) is None:
            return 1
    elif words[0] == "logs":
        there["looked"] = there.get("looked", 0) + 1
        print(f"[{there['looked']} of 10 trials done (1 trained), 0 running, 0 failed]")
    elif words[0] == "wait":
        print(there.get("ended", 1))
    elif words[0] == "run":
        _say(there, words)
    return 0


def _say(there: dict[str, Any], words: list[str]) -> None:
    for named, text in {**SAID, **there.get("said", {})}.items():
        if set(named.split()) <= set(words):
            print(text.replace("$PUBLIC", os.environ["SWEEPS_PUBLIC_URL"]))
            return


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).name, sys.argv[2:]))
