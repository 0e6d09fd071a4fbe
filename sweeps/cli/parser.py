"""The parser of every command: errors of one line, and a help that may have two lengths."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any, NoReturn

from search_spaces.errors import InputError, unknown_name

EXIT_STATUSES = "exit status: 0 done, 1 failed, 2 bad input, 3 refused, 130 interrupted"
_MEANT = {
    "--warm-start": "--resume",
    "--n-trials": "--trials",
    "--max-trials": "--trials",
    "--n-jobs": "--workers",
    "--learning-rate": "--fix learning_rate=VALUE",
    "--lr": "--fix learning_rate=VALUE",
    "--batch-size": "--fix batch_size=VALUE",
}
"""What other programs call it -> the option here."""
NUM_FIRST_EXAMPLES = 2
"""Examples of a `--help` beside which there is `--help-all`."""


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line, and suggest the option that was probably meant.

    Args:
        prog: how the help names the command.
        description: what it does, in one line.
        examples: a headline and examples, a line each, with `{prog}` for the command.
    """

    def __init__(self, prog: str, description: str = "", examples: str = "") -> None:
        super().__init__(
            prog=prog,
            usage=f"{prog} [options]",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._examples = examples.strip().format(prog=prog).splitlines()
        self._is_split = False

    def split_help(self, title: str) -> None:
        """Makes `--help` show the options outside of groups only, and adds `--help-all` for all.

        Args:
            title: of the group of the options outside of groups.
        """
        self._is_split = True
        self._optionals.title = title
        self.add_argument(
            "--help-all", action=_HelpAll, help="show all options, in groups, and exit"
        )

    def format_help(self) -> str:
        """What `--help` prints."""
        if not self._is_split:
            return self.format_help_all()
        return self._help([self._optionals], self._examples[: 1 + NUM_FIRST_EXAMPLES])

    def format_help_all(self) -> str:
        """What `--help-all` prints, and `--help` where there is no such option."""
        return self._help(self._action_groups, self._examples)

    def _help(self, groups: Iterable[argparse._ArgumentGroup], examples: list[str]) -> str:
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        for group in groups:
            formatter.start_section(group.title)
            formatter.add_text(group.description)
            formatter.add_arguments(group._group_actions)
            formatter.end_section()
        formatter.add_text("\n".join([*examples, "", EXIT_STATUSES]))
        return formatter.format_help()

    def error(self, message: str) -> NoReturn:
        """Raises InputError instead of printing usage and exiting."""
        if message.startswith("unrecognized arguments: "):
            received = message.removeprefix("unrecognized arguments: ").split()[0]
            valid = [option for action in self._actions for option in action.option_strings]
            if not received.startswith("-"):
                raise InputError(self._out_of_place(received, valid))
            names = sorted(option for option in valid if option.startswith("--"))
            meant = {word: name for word, name in _MEANT.items() if name.split()[0] in names}
            raise unknown_name("option", received.partition("=")[0], names, meant)
        help_option = "--help-all" if self._is_split and not self._is_first(message) else "--help"
        raise InputError(f"{message[0].upper()}{message[1:]}. See {self.prog} {help_option}.")

    def _out_of_place(self, received: str, valid: list[str]) -> str:
        """What to say of a word that belongs to no option."""
        hint = f"See {self.prog} --help."
        if "--space" in valid:
            hint = f"For a space write: {self.prog} --space {received}"
        return f"Unexpected '{received}': it belongs to no option. {hint}"

    def _is_first(self, message: str) -> bool:
        """Whether argparse's message is about an option that `--help` shows."""
        names = ("/".join(action.option_strings) for action in self._optionals._group_actions)
        return any(message.startswith(f"argument {name}: ") for name in names)


def check_not_empty(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Raises InputError for an option that was given an empty text, which would mean none."""
    for action in parser._actions:
        value = getattr(arguments, action.dest, None)
        means_none = "" in (action.const, action.default)
        if means_none or not ("" in value if isinstance(value, list) else value == ""):
            continue
        name = action.option_strings[0] if action.option_strings else str(action.metavar)
        raise InputError(
            f"{name} must not be empty. Received: ''. Leave it out, or name something."
        )


class _HelpAll(argparse.Action):
    """Prints the long help and exits."""

    def __init__(self, option_strings: list[str], dest: str, **how: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, **how)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        assert isinstance(parser, OneLineParser)
        print(parser.format_help_all(), end="")
        parser.exit()
