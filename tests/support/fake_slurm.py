"""`srun` and `scontrol` for one job, whose nodes are network namespaces of this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from network_namespaces import Host

JOB = "17"
OWN_PROCESSES = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
"""Ray looks for its processes on the whole machine, and stops all of them."""
OWN_FILES = 'mkdir -p /tmp/ray && mount -t tmpfs none /tmp/ray && exec "$@"'


def install(folder: Path, hosts: Sequence[Host]) -> dict[str, str]:
    """Writes the commands into a folder; returns what Slurm says to a job's script."""
    folder.mkdir()
    given = {
        "addresses": [host.address for host in hosts],
        "entrances": [["ip", "netns", "exec", host.name, *OWN_PROCESSES] for host in hosts],
        "queued": str(folder / "queued"),
    }
    (folder / "job.json").write_text(json.dumps(given))
    for name in ("srun", "scontrol"):
        (folder / name).write_text(
            f"#!/bin/sh\nPYTHONPATH={Path(__file__).parent}:$PYTHONPATH "
            f'exec {sys.executable} {__file__} {folder / "job.json"} {name} "$@"\n'
        )
        (folder / name).chmod(0o755)
    return {
        "PATH": f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SLURM_JOB_ID": JOB,
        "SLURM_JOB_NODELIST": "n[1-2]",
        "SLURM_JOB_NUM_NODES": str(len(hosts)),
        "SLURM_CPUS_PER_TASK": "1",
    }


def queued(folder: Path) -> bool:
    """Whether the job has been queued again."""
    return (folder / "queued").exists()


def _srun(given: dict[str, Any], arguments: list[str]) -> int:
    """One task on each node, which ends with SIGTERM; returns the worst status."""
    own = ["--no-kill", "--kill-on-bad-exit=0", "--wait=0", "--cpus-per-task=1"]
    assert arguments[: len(own)] == own, arguments
    tasks = [
        subprocess.Popen([*entrance, "sh", "-c", OWN_FILES, "sh", *arguments[len(own) :]])
        for entrance in given["entrances"]
    ]
    signal.signal(signal.SIGTERM, lambda number, frame: [task.kill() for task in tasks])
    return max(status if status >= 0 else 128 - status for status in (t.wait() for t in tasks))


def _scontrol(given: dict[str, Any], arguments: list[str]) -> int:
    if arguments[:2] == ["show", "hostnames"]:
        sys.stdout.write("".join(f"{address}\n" for address in given["addresses"]))
    else:
        assert arguments == ["requeue", JOB], arguments
        Path(given["queued"]).touch()
    return 0


if __name__ == "__main__":
    job, name, *rest = sys.argv[1:]
    sys.exit({"srun": _srun, "scontrol": _scontrol}[name](json.loads(Path(job).read_text()), rest))
