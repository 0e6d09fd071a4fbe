"""Output that is closed, full, or not read to its end."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.runtime.standard_streams import LastingOutput, printable

PROGRAM = """
import sys
from pathlib import Path
from pipelines.runtime.standard_streams import flush_streams, lost_output, use_lasting_streams
use_lasting_streams()
with open("first.txt", "w") as file:  # Gets the lowest number that is free.
    for _ in range(3000):
        print("line", flush=True)
        print("warning", file=sys.stderr)
    file.write("content")
flush_streams()
lost = lost_output()
Path("lost.txt").write_text(type(lost).__name__ if lost is None else str(lost.strerror))
"""


@pytest.mark.parametrize(
    ("redirection", "lost"),
    [
        (">&-", "NoneType"),
        (">&- 2>&- <&-", "NoneType"),
        ("> /dev/full", "No space left on device"),
        ("> /dev/null 2> /dev/full", "NoneType"),
        ("| head -n 1 > /dev/null", "NoneType"),
        ("> /dev/null", "NoneType"),
    ],
)
def test_work_goes_on_and_what_was_lost_is_known(tmp_path, redirection, lost):
    command = f"'{sys.executable}' -c '{PROGRAM}' {redirection}"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert Path("lost.txt").read_text() == lost
    assert Path("first.txt").read_text() == "content", "nothing is printed into it"
    assert "Traceback" not in done.stderr


def test_letters_that_the_output_lacks_are_written_as_escapes():
    code = (
        "from pipelines.runtime.standard_streams import use_lasting_streams\n"
        "use_lasting_streams()\n"
        "print('ph\\u00f6tos caf\\udce9')\n"
    )
    for encoding, printed in (("ascii", rb"ph\xf6tos caf\udce9"), ("utf-8", "phö".encode())):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, timeout=60,
            env={"PYTHONIOENCODING": encoding},
        )  # fmt: skip
        assert done.returncode == 0 and done.stdout.startswith(printed), done.stderr


class Terminal(io.StringIO):
    """A terminal that keeps what is written to it."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_is_not_given_what_it_obeys():
    terminal, pipe = Terminal(), io.StringIO()
    name = "cat\x1b]0;owned\x07\x1b[2J\x9b31m\u202e"
    for stream in (terminal, pipe):
        print("\rdone", name, "é\u4e2d\ttext", file=LastingOutput(stream))

    shown = "cat\\x1b]0;owned\\x07\\x1b[2J\\x9b31m\\u202e"
    assert terminal.getvalue() == f"\rdone {shown} é\u4e2d\ttext\n"
    assert pipe.getvalue() == f"\rdone {name} é\u4e2d\ttext\n"


def test_what_draws_on_a_terminal_keeps_its_own_codes():
    terminal = Terminal()
    output = LastingOutput(terminal)
    output.styled.write("\x1b[1mbold\x1b[0m")

    assert terminal.getvalue() == "\x1b[1mbold\x1b[0m" and output.styled.isatty()
    assert printable("a\rb\n") == "a\\rb\n"
