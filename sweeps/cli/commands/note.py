"""`note`: write down what a sweep was for, or what came of it."""

from __future__ import annotations

import argparse
from pathlib import Path

from search_spaces.errors import InputError
from sweeps.cli.exit_codes import DONE
from sweeps.cli.shared_options import add_work_dir
from sweeps.history.recorded_sweep import read_sweep
from sweeps.reporting.console import say, warn
from sweeps.state.lock import is_driven
from sweeps.state.requests import leave_request, wait_for_answer
from sweeps.state.sweep_file import stored_sweep

DESCRIPTION = "Keep a note with a sweep; `list`, `show` and its run in MLflow have it."
EXAMPLES = """
examples:
  {prog} nightly "augmentation off, after the labels were cleaned"
"""
MAX_CHARACTERS = 1_000


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `note`."""
    parser.add_argument("name", metavar="NAME", help="the sweep")
    parser.add_argument("text", metavar="TEXT", help="the note, in place of an earlier one")
    add_work_dir(parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit status."""
    text = " ".join(arguments.text.split())
    if not text or len(text) > MAX_CHARACTERS:
        raise InputError(
            f"A note has 1 to {MAX_CHARACTERS} characters. Received: {len(text)}. Longer texts "
            "belong into a file beside the sweep."
        )
    sweep = stored_sweep(Path(arguments.work_dir), arguments.name, needed=())
    if is_driven(sweep.paths):
        if sweep.file.is_finished:
            raise InputError(f"The finalists of '{sweep.paths.name}' run now. Note it afterwards.")
        answer = wait_for_answer(leave_request(sweep.paths, "note", text=text))
        say(answer or f"{sweep.paths.name} takes the note once it is less busy")
        return DONE
    read_sweep(sweep.paths)  # Damaged records are refused before anything is locked.
    from sweeps.integrity.notes import keep_note

    problem = keep_note(sweep, text)
    say("noted")
    if problem:
        warn(f"MLflow has the note with the next `keras-sweeps sync {sweep.paths.name}`: {problem}")
    return DONE
