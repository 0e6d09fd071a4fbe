"""Executes a notebook in a kernel of its own; as a script it stores the outputs anew.

`python tests/support/notebooks.py docs/notebook.ipynb`, with the extra `test` installed.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ANSI_CODES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
WORK_FOLDER = re.compile(r"(?<=\()/\S*/(?=\.sweeps/)")
CELL_SECONDS = 600
EXIT_SECONDS = 60.0


def executed(path: Path, folder: Path) -> nbformat.NotebookNode:
    """The notebook with what its cells print and show in a new kernel.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell raised.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=CELL_SECONDS, kernel_name="python3", record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )  # fmt: skip
    # Jupyter kills a kernel after 5 seconds, which leaves temporary files where all is busy.
    client.create_kernel_manager().shutdown_wait_time = EXIT_SECONDS
    client.execute()
    return notebook


def stored_form(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Without what tells of this machine or of a terminal."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {}
        if "outputs" in cell:
            cell.outputs = _merged(cell.outputs)
    return notebook


def _merged(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Neighbouring pieces of one stream as one, as front ends show them."""
    merged: list[nbformat.NotebookNode] = []
    for output in outputs:
        if "text" in output:
            output.text = WORK_FOLDER.sub("", ANSI_CODES.sub("", output.text))
            if merged and merged[-1].get("name") == output.name:
                merged[-1].text += output.text
                continue
        merged.append(output)
    return merged


def main(path: Path) -> None:
    """Executes the file and writes it back."""
    with tempfile.TemporaryDirectory(prefix="notebook-") as folder:
        os.environ["IPYTHONDIR"] = folder  # No history, and no start-up files of a person's.
        notebook = stored_form(executed(path, Path(folder)))
    nbformat.write(notebook, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
