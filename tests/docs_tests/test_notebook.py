"""docs/notebook.ipynb runs from arrays to a served model, and is stored with what it showed."""

from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from notebooks import executed

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebook.ipynb"
MAX_BYTES = 300_000


@pytest.fixture
def folder(monkeypatch) -> Iterator[Path]:
    """Where the kernel starts and has its temporary files; a socket's path must be short."""
    place = Path(tempfile.mkdtemp(prefix="nb-"))
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setenv("IPYTHONDIR", str(place / "ipython"))
    yield place
    shutil.rmtree(place, ignore_errors=True)


def processes_in(folder: Path) -> list[str]:
    """The command lines of processes that work below a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink().is_relative_to(folder):
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:  # It ended, or is not ours.
            continue
    return found


def text_of(cell: nbformat.NotebookNode) -> str:
    """What a cell printed, displayed and returned, as plain text."""
    texts = [
        output.get("text") or output.get("data", {}).get("text/plain", "")
        for output in cell.outputs
    ]
    return "\n".join(texts)


def pictures_of(notebook: nbformat.NotebookNode) -> int:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def warnings_of(notebook: nbformat.NotebookNode) -> list[str]:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return [output.text for output in outputs if output.get("name") == "stderr"]


@pytest.mark.timeout(600)  # A minute on two cores that have nothing else to do.
@pytest.mark.long
def test_it_runs_and_leaves_nothing_behind(folder):
    notebook = executed(NOTEBOOK, folder)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    search = next(cell for cell in code if "ks.run(" in cell.source)
    (bar,) = (o.data["text/plain"] for o in search.outputs if o.output_type == "display_data")
    assert bar.startswith("█" * 30 + "  5 of 5 trials done")
    assert ", 0 running, 0 failed, elapsed " in bar
    assert re.search(r"\nbest: trial \d, val_accuracy 0\.9\d+$", bar)
    printed = text_of(search)
    assert "Best: trial " in printed and " started: " not in printed and "\x1b" not in printed
    own = next(cell for cell in code if "ks.run(build, " in cell.source)
    value, params = ast.literal_eval(text_of(own))
    assert value > 0.2 and sorted(params) == ["dropout", "filters", "learning_rate"]
    assert "Winner: " in text_of(next(cell for cell in code if "finalize(" in cell.source))
    assert "done version 1 test accuracy 0.9" in text_of(
        next(cell for cell in code if "ks.promote(" in cell.source)
    )
    said, right = text_of(code[-1]).splitlines()
    assert said == "served as predicted: True"
    assert int(re.fullmatch(r"right: (\d+) of 20", right)[1]) >= 17
    assert pictures_of(notebook) == 2 and not warnings_of(notebook)
    deadline = time.monotonic() + 20
    while processes_in(folder) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert processes_in(folder) == []


def test_it_is_stored_with_its_outputs_and_without_traces_of_a_machine():
    assert NOTEBOOK.stat().st_size < MAX_BYTES
    text = NOTEBOOK.read_text()
    for trace in (
        str(Path.home()),
        "/tmp",
        "/home/",
        "/root",
        "site-packages",
        "\\u001b",
    ):
        assert trace not in text, trace
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert text_of(code[-1]).startswith("served as predicted: True\nright: ")
    assert pictures_of(notebook) == 2 and not warnings_of(notebook)


INTERRUPTED = """
import keras_sweeps as ks
ks.run("mlp", "digits", trials=3, epochs=2, pruner="none", no_baselines=True, name="stopped")
---
sweep = ks.load_sweep()
print(sweep.state)
sweep.resume()
print(sweep.state, [trial.state.value for trial in sweep.trials].count("COMPLETE"))
---
ks.run("mpl", "digits")
"""


@pytest.mark.long
def test_the_stop_button_ends_a_sweep_that_the_next_cell_resumes(folder):
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(text.strip()) for text in INTERRUPTED.split("---")]
    )
    log = folder / ".sweeps" / "sweeps" / "stopped" / "sweep.log"
    client = NotebookClient(
        notebook, timeout=280, kernel_name="python3", coalesce_streams=True, allow_errors=True,
        resources={"metadata": {"path": str(folder)}},
    )  # fmt: skip

    def stop_when_it_trains() -> None:
        while not (log.exists() and " starts, " in log.read_text()):
            time.sleep(0.2)
        os.killpg(os.getpgid(client.km.provisioner.pid), signal.SIGINT)  # As front ends do.

    threading.Thread(target=stop_when_it_trains, daemon=True).start()
    client.execute()
    first, second, third = notebook.cells
    assert first.outputs[-1].ename == "KeyboardInterrupt"
    said = text_of(second).splitlines()
    assert said[0] == "interrupted" and "finished 3" in said
    assert third.outputs[-1].traceback[0].startswith("InputError: Unknown space 'mpl'. Did you")
    assert len(third.outputs[-1].traceback) == 1
