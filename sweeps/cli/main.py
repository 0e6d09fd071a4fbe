"""The entry point `keras-sweeps`, its commands, one help style, one set of exit statuses.

0 done, 1 failed, 2 bad input, 3 refused, 130 interrupted. Every command is also a thin script in
its package's folder (`python sweeps/run.py` is `keras-sweeps run`).
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from pipelines.runtime.standard_streams import (
    flush_streams,
    lost_output,
    use_lasting_streams,
)
from pipelines.runtime.surroundings import settle_surroundings
from search_spaces.errors import InputError, shown, unknown_name
from sweeps.cli.config_file import Line, config_lines, located
from sweeps.cli.exit_codes import BAD_INPUT, DONE, FAILED, INTERRUPTED
from sweeps.cli.parser import OneLineParser, check_not_empty
from sweeps.reporting.console import warnings_shown
from tracking.addresses import check_readable, holds_password, redacted

COMMANDS = {
    "run": "run a sweep, or look at spaces and baselines",
    "list": "list sweeps with their state, best trial and time",
    "show": "show a sweep, or one of its trials",
    "compare": "compare sweeps: what each found, and what differs",
    "export": "write a sweep's trials as CSV, JSON or Parquet",
    "report": "write one page about a sweep, or compare several",
    "ui": "show sweeps in MLflow's own pages",
    "open": "open a sweep's page in the browser",
    "watch": "watch a sweep that runs in another terminal",
    "stop": "stop a running sweep, so that it can be resumed, or one trial",
    "add": "have a running sweep try a point of your own next",
    "note": "keep a note with a sweep",
    "delete": "delete a sweep with its study, runs and files",
    "clean": "show what data and caches take, remove what no sweep uses",
    "sync": "send what a sweep has recorded and MLflow does not have yet",
    "finalize": "compare a sweep's best configurations on fresh seeds",
    "promote": "make a model the champion if it is better; roll back",
    "replay": "train a recorded run again and compare every epoch",
    "doctor": "check that study, local records and MLflow agree",
    "predict": "classify image files with a stored model",
    "server": "start an MLflow server for one machine",
    "migrate": "copy a local store into a server, and compare",
    "completion": "print a shell script that completes commands",
    "explore": "look at a data set: shapes, ranges, counts, a figure",
}
"""Name -> summary. Each is a module of `sweeps.cli.commands` with `DESCRIPTION`, `EXAMPLES`,
`add_options(parser)` and `run(arguments)`."""

MEANT = {
    "ls": "list", "ps": "list", "status": "show", "cat": "show", "best": "show", "info": "show",
    "diff": "compare", "csv": "export", "tail": "watch", "follow": "watch", "kill": "stop",
    "cancel": "stop", "enqueue": "add", "comment": "note", "rm": "delete", "remove": "delete",
    "gc": "clean", "prune": "clean", "serve": "server", "resume": "run --resume",
    "register": "promote", "rollback": "promote --rollback", "check": "doctor", "push": "sync",
}  # fmt: skip
"""What people type who know other programs -> our command."""
_SCHEME = re.compile(r"[A-Za-z][\w+.-]*://")


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Runs one command and returns its exit status.

    Args:
        arguments: the command's name and its options; None takes them from the process.
        prog: how the help names the command; scripts give their own path.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with warnings_shown():
            return _dispatch(given, prog)
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    except OSError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:  # No input leads here: a bug, which people cannot read.
        from sweeps.cli.crash_report import crash_line

        print(f"error: {crash_line(error)}", file=sys.stderr)
        return FAILED


def script(command: str, path: str) -> NoReturn:
    """Runs a command as the script at `path` and ends the process."""
    _prepare()
    file = Path(path).resolve()
    _leave(main([command, *sys.argv[1:]], f"python {file.parent.name}/{file.name}"))


def console_main() -> NoReturn:
    """The installed entry point."""
    _prepare()
    _leave(main())


def _prepare() -> None:
    """What only a process of our own may do to itself."""
    settle_surroundings()
    use_lasting_streams()


def _leave(status: int) -> NoReturn:
    """Ends the process without tearing down what ends with it anyway: that takes a second.

    Everything is written by now, and the server of workers ends when this process does.
    """
    flush_streams()
    lost = lost_output()
    if lost is not None and status == DONE:
        print(f"error: standard output cannot be written ({lost.strerror})", file=sys.stderr)
        status = FAILED
    if "sweeps.executors.processes" in sys.modules:
        from sweeps.executors.processes import close_executors

        close_executors()
    if "multiprocessing.forkserver" in sys.modules:
        from multiprocessing import util

        shutil.rmtree(util.get_temp_dir(), ignore_errors=True)  # With the server's socket.
    os._exit(status)


def _dispatch(given: list[str], prog: str | None) -> int:
    _refuse_nul(given)
    if not given or given[0] in ("-h", "--help"):
        print(_overview())
        return DONE if given else BAD_INPUT
    if given[0] == "--version":
        from sweeps.formatting import own_version

        print(f"keras-sweeps {own_version()}")
        return DONE
    name, *options = given
    if name in MEANT:
        raise InputError(f"Unknown command '{name}'. It is called: keras-sweeps {MEANT[name]}")
    if name not in COMMANDS:
        raise unknown_name("command", name, COMMANDS)
    _check_working_folder()
    _refuse_passwords(options)
    parser = make_parser(name, prog)
    module = _command(name)
    run: Callable[[argparse.Namespace], int] = module.run
    lines, options = config_lines(parser, options)
    if lines:
        _check_file(module.check, parser, lines, options)
    options = [*(token for token, _ in lines), *options]
    arguments = parser.parse_args(options)
    check_not_empty(parser, arguments)
    arguments.given = _given(make_parser(name, prog), options)
    return run(arguments)


def _check_file(
    check: Callable[[argparse.Namespace], None],
    parser: argparse.ArgumentParser,
    lines: list[Line],
    options: list[str],
) -> None:
    """Raises InputError with the file's line for a setting that only the settings know is wrong."""

    def problem(tokens: list[str]) -> str | None:
        try:
            check(parser.parse_args([*tokens, *options]))
        except InputError as error:
            return str(error)
        return None

    found = problem([token for token, _ in lines])
    if found is not None:
        raise located(InputError(found), lines, problem)


def _check_working_folder() -> None:
    """Raises InputError where the working folder is gone: all that is written goes below it."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise InputError(
            "The working folder must exist. It was removed or replaced after this shell went into "
            "it. Change into another one, or into the new one of that name: cd DIR."
        ) from error


def _refuse_nul(given: list[str]) -> None:
    """Raises InputError for a NUL character, which no shell gives a program, but another may."""
    for word in given:
        if "\0" in word:
            raise InputError(f"No option may hold a NUL character. Received: {shown(word)}.")


def _refuse_passwords(options: list[str]) -> None:
    """Raises InputError for a password on the command line, which everybody can read."""
    for option in options:
        name, equals, value = option.partition("=")
        address = value if equals and name.startswith("--") else option
        if not _SCHEME.match(address):
            continue
        if not any(sign.isspace() for sign in address):  # Else it is a text that begins so.
            check_readable(address, "An address on the command line")
        if holds_password(address):
            raise InputError(
                "An address on the command line must not hold a password: the list of processes "
                f"shows it to everybody. Received: {redacted(address)}. Leave it out; MLflow's "
                "goes into MLFLOW_TRACKING_PASSWORD, PostgreSQL's into PGPASSFILE or PGPASSWORD, a "
                "whole address into MLFLOW_TRACKING_URI, SWEEPS_STORAGE or SWEEPS_NOTIFY."
            )


def _command(name: str) -> ModuleType:
    """The module of a command; raises KeyError for one that there is not."""
    if name not in COMMANDS:
        raise KeyError(name)
    return importlib.import_module(f"sweeps.cli.commands.{name}")


def make_parser(name: str, prog: str | None = None) -> OneLineParser:
    """The parser of a command; raises KeyError for one that there is not."""
    module = _command(name)
    parser = OneLineParser(prog or f"keras-sweeps {name}", module.DESCRIPTION, module.EXAMPLES)
    module.add_options(parser)
    return parser


def _given(parser: argparse.ArgumentParser, options: list[str]) -> set[str]:
    """Names of the options that the command line holds, also where they equal the default."""
    for action in parser._actions:
        action.default = argparse.SUPPRESS
    return set(vars(parser.parse_args(options)))


def _overview() -> str:
    commands = "\n".join(f"  {name:<12}{summary}" for name, summary in COMMANDS.items())
    return (
        f"usage: keras-sweeps COMMAND [options]\n\ncommands:\n{commands}\n\n"
        "keras-sweeps COMMAND --help lists a command's options; run has --help-all, too."
    )
