"""`completion`: what a shell needs to complete commands and options."""

from __future__ import annotations

import argparse

from sweeps.cli.exit_codes import DONE

DESCRIPTION = "Print a script that teaches a shell to complete commands and options."
EXAMPLES = """
examples:
  eval "$({prog} --shell bash)"
  {prog} --shell zsh > ~/.zfunc/_keras-sweeps
"""
SHELLS = ("bash", "zsh", "tcsh")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `completion`."""
    parser.add_argument("--shell", choices=SHELLS, required=True, help="bash, zsh or tcsh")


def run(arguments: argparse.Namespace) -> int:
    """Prints the script; returns the exit status."""
    import shtab

    from sweeps.cli.main import COMMANDS, make_parser

    whole = argparse.ArgumentParser(prog="keras-sweeps", allow_abbrev=False)
    commands = whole.add_subparsers()
    for name, summary in COMMANDS.items():
        options = make_parser(name)
        commands.add_parser(name, help=summary, parents=[options], add_help=False)
    print(shtab.complete(whole, arguments.shell))
    return DONE
