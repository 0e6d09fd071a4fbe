"""A machine with one GPU that is not there, for the real command: `nvidia-smi` and figures of NVML."""

from __future__ import annotations

import os
from pathlib import Path

import chaos
import fake_gpus

from sweeps.resources.nvml import GpuFigures, ProcessFigures


def environment_with_a_gpu(folder: Path) -> dict[str, str]:
    """The environment of a command whose `nvidia-smi` is a script in `folder`."""
    program = folder / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho '0, GPU-aaaa, 144384, NVIDIA H200'\n")
    program.chmod(0o755)
    environment = {**chaos.environment(), "MLFLOW_DISABLE_TELEMETRY": "true"}
    return {**environment, "PATH": f"{program.parent}:{environment['PATH']}"}


class WorkersMeter(fake_gpus.FakeMeter):
    """Every worker of this driver takes a GiB of the GPU."""

    def read(self, gpu: str) -> GpuFigures:
        workers = chaos.descendants(os.getpid())
        part = ProcessFigures(2**30, 25.0)
        return GpuFigures(
            2**30 * len(workers), 141 * 2**30, 50.0, 200.0, dict.fromkeys(workers, part)
        )
