"""The script for Slurm, with namespaces for nodes, and `srun` and `scontrol` of our own."""

from __future__ import annotations

import os
import re
import signal
import subprocess

import fake_slurm
import pytest
from cluster_sweeps import HIDDEN, ROOT, SWEEP, outcome
from network_namespaces import CAN_BE_MADE, hosts

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not CAN_BE_MADE, reason="network namespaces are root's to make"),
]
pytest.importorskip("ray")


def test_the_job_of_slurm_is_queued_again_before_its_time_ends_and_then_ends(local, tmp_path):
    script = (ROOT / "docs" / "clusters" / "slurm.sh").read_text()
    options = " ".join(SWEEP).replace("--name s", "--name s --resume auto")
    script, num_changed = re.subn(r"--space cnn .* --threads 4", options, script)
    assert num_changed == 1
    job, work = tmp_path / "job.sh", tmp_path / "work"
    job.write_text(script.replace("nightly", "s"))
    work.mkdir()
    kept = {name: value for name, value in os.environ.items() if name not in HIDDEN}
    with hosts(2, work) as made:
        given = fake_slurm.install(tmp_path / "slurm", made)
        environment = {**kept, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), **given}

        def submit() -> subprocess.Popen[str]:
            return subprocess.Popen(
                ["bash", str(job)], cwd=work, env=environment, text=True, start_new_session=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip

        first = submit()
        assert first.stdout is not None
        lines = []
        for line in first.stdout:
            lines.append(line)
            if "trial 0 epoch 5/9" in line:
                break
        first.send_signal(signal.SIGTERM)
        said = "".join(lines) + first.communicate(timeout=200)[0]
        assert first.returncode == 130 and fake_slurm.queued(tmp_path / "slurm"), said
        again = submit()
        said = again.communicate(timeout=300)[0]
        assert again.returncode == 0, said
    assert outcome(work) == local
