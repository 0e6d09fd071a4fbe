"""`--notify`: tells a web address or a command that a sweep or a promotion has ended.

It is told once everything is stored. What cannot be told is a warning: it costs no sweep anything.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from search_spaces.errors import InputError
from sweeps.reporting.console import warn

NOTIFY_VARIABLE = "SWEEPS_NOTIFY"
"""For addresses that hold a secret: the list of processes shows a command line to everybody."""
WEB_SECONDS, COMMAND_SECONDS = 5.0, 30.0


class Notifier:
    """Tells where `target` says.

    Args:
        target: an address, or a command, which gets the document on its standard input; None for
            nobody.

    Raises:
        InputError: It is neither.
    """

    def __init__(self, target: str | None) -> None:
        self._target = target
        if target is None:
            return
        if self._is_web:
            _check_address(target)
            return
        try:
            words = shlex.split(target)
        except ValueError:
            words = []
        if not words or shutil.which(words[0]) is None:
            raise InputError(
                "--notify must be an address (https://...) or a command that can be run. Received: "
                f"'{words[0] if words else target}', which is not found."
            )

    @property
    def _is_web(self) -> bool:
        return (self._target or "").startswith(("http://", "https://"))

    @property
    def is_on(self) -> bool:
        """Whether there is anybody to tell."""
        return self._target is not None

    def tell(self, event: str, text: str, document: Mapping[str, Any]) -> None:
        """Tells what happened; a warning says where that failed.

        Args:
            event: `sweep` or `promotion`.
            text: one line for people.
            document: JSON values for programs.
        """
        if self._target is None:
            return
        body = {"event": event, "text": text, **document}
        try:
            if self._is_web:
                self._post(body)
            else:
                self._run(body)
        except Exception as error:  # Whatever a network or a command does.
            warn(f"--notify: {self._shown} was not told ({_why(error)})")

    @property
    def _shown(self) -> str:
        """The target without what may be a secret: a path of a web hook is one."""
        assert self._target is not None
        if self._is_web:
            return urlsplit(self._target).hostname or "the address"
        return shlex.split(self._target)[0]

    def _post(self, body: Mapping[str, Any]) -> None:
        import requests

        assert self._target is not None
        requests.post(self._target, json=body, timeout=WEB_SECONDS).raise_for_status()

    def _run(self, body: Mapping[str, Any]) -> None:
        assert self._target is not None
        subprocess.run(
            shlex.split(self._target), input=json.dumps(body), text=True, check=True,
            timeout=COMMAND_SECONDS, stdout=subprocess.DEVNULL,
        )  # fmt: skip


def add_notify_option(parser: argparse._ActionsContainer) -> None:
    """Adds `--notify`."""
    parser.add_argument(
        "--notify",
        metavar="TARGET",
        help="tell an https:// address, or a command on its standard input, how it ended, as JSON "
        f"(default: {NOTIFY_VARIABLE})",
    )


def notifier_of(arguments: argparse.Namespace) -> Notifier:
    """Who is told, by the option or the environment; raises InputError for what cannot be."""
    return Notifier(arguments.notify or os.environ.get(NOTIFY_VARIABLE) or None)


def _why(error: Exception) -> str:
    """What went wrong, without the target: it may hold a secret."""
    if isinstance(error, subprocess.CalledProcessError):
        return f"it ended with status {error.returncode}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    return f"it answered with status {status}" if status else type(error).__name__


def _check_address(target: str) -> None:
    """Raises InputError for an address of no host."""
    try:
        host = urlsplit(target).hostname
    except ValueError:
        host = None
    if not host:
        raise InputError(
            "--notify must be an address of a host, such as https://example.org/hook. Received: "
            "one without. Write it whole."  # Not repeated: an address may hold a secret.
        )
