"""Which GPUs there are and which of them are used; real ones keep the contract where there are any."""

from __future__ import annotations

import os
from pathlib import Path

import contracts
import fakes
import pytest

from search_spaces.errors import InputError
from sweeps import devices
from sweeps.cli import main
from sweeps.devices import Machine, detect_machine, with_gpus
from sweeps.gpus import Gpu, NvidiaSmi, check_gpus, chosen_gpus

TWO = fakes.FakeInventory().gpus()


def nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


LISTING = "printf '0, GPU-aaaa, 144384, NVIDIA H200\\n1, GPU-bbbb, [N/A], NVIDIA GB10, rev. 2\\n'"


class TestFakeInventory(contracts.GpuInventoryContract):
    @pytest.fixture
    def inventory(self):
        return fakes.FakeInventory()


class TestNvidiaSmiWithAStandIn(contracts.GpuInventoryContract):
    """The real reader on the output of a program that prints what nvidia-smi does."""

    @pytest.fixture
    def inventory(self, tmp_path, monkeypatch):
        nvidia_smi(tmp_path, monkeypatch, LISTING)
        return NvidiaSmi()


class TestNvidiaSmi(contracts.GpuInventoryContract):
    @pytest.fixture
    def inventory(self):
        if not NvidiaSmi().gpus():
            pytest.skip("this machine has no GPU that nvidia-smi lists")
        return NvidiaSmi()


def test_memory_that_is_not_told_is_unknown_and_names_may_hold_commas(tmp_path, monkeypatch):
    nvidia_smi(tmp_path, monkeypatch, LISTING)
    assert NvidiaSmi().gpus() == (
        Gpu("0", "NVIDIA H200", 144384 * 2**20, "GPU-aaaa"),
        Gpu("1", "NVIDIA GB10, rev. 2", None, "GPU-bbbb"),
    )


@pytest.mark.parametrize("script", ["exit 9", "echo NVIDIA-SMI has failed", "kill $$", ""])
def test_a_program_that_fails_or_says_something_else_means_no_gpu(tmp_path, monkeypatch, script):
    nvidia_smi(tmp_path, monkeypatch, script)
    assert NvidiaSmi().gpus() == ()


def test_gpus_without_cuda_libraries_are_a_note(monkeypatch):
    monkeypatch.setattr(devices, "_has_cuda_libraries", lambda: False)
    found = detect_machine(fakes.FakeInventory())
    assert found.gpus == () and "2 GPU found" in found.note and "not installed" in found.note
    with pytest.raises(InputError, match="Received: 0. 2 GPU found, but .* not installed"):
        with_gpus(found, "0")
    assert with_gpus(found, "none").note == ""
    monkeypatch.setattr(devices, "_has_cuda_libraries", lambda: True)
    assert detect_machine(fakes.FakeInventory()).gpus == TWO


def test_gpus_are_chosen_by_number_in_the_order_given():
    assert chosen_gpus("all", TWO) == TWO
    assert chosen_gpus("none", TWO) == ()
    assert chosen_gpus("1", TWO) == (TWO[1],)
    assert chosen_gpus("1,0", TWO) == (TWO[1], TWO[0])
    with pytest.raises(InputError, match="Received: 2, 7. Choose among: 0, 1."):
        chosen_gpus("0,2,7", TWO)
    with pytest.raises(InputError, match="Received: 0. There is none."):
        chosen_gpus("0", ())


@pytest.mark.parametrize("text", ["", "some", "0,", "0,0", "-1", "0 1", "GPU-aaaa", "²"])
def test_anything_else_is_refused(text):
    with pytest.raises(InputError, match="--gpus must be all, none, or different numbers"):
        check_gpus(text)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--gpus", "half"], "--gpus must be all, none"),
        (["--gpus", "0"], "There is none"),
        (["--trials-per-gpu", "0"], "must be a whole number of at least 1"),
        (["--trials-per-gpu", "few"], "('auto' is possible too)"),
        (["--gpus", "none", "--trials-per-gpu", "2"], "--trials-per-gpu needs a GPU"),
    ],
)
def test_a_wrong_option_is_one_line_before_anything_is_started(
    tmp_path, monkeypatch, capsys, options, words
):
    monkeypatch.setattr(devices, "detect_machine", lambda: Machine(2, 2**34))
    monkeypatch.setenv("PATH", str(tmp_path))  # No nvidia-smi, whatever this machine has.
    assert main(["run", "--space", "mlp", "--dataset", "digits", *options]) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error
    assert not list(tmp_path.rglob("optuna.db")) and not list(tmp_path.rglob("sweep.json"))
