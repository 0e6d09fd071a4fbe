"""A sweep's settings as a YAML file: the options of `run` under their own names, without dashes.

A file is read into the very tokens that the command line would have, so every rule and message is
the same; the command line comes after it and wins.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search_spaces.errors import InputError, shown, unknown_name
from search_spaces.files import UnusableFileError, named_path, read_text
from search_spaces.registry import is_space
from sweeps.cli.shared_options import schema_of

NOT_SETTINGS = {
    "help", "help_all", "config", "write_config", "config_schema", "list_spaces", "describe",
    "dry_run", "baselines_only", "resume", "accept_changes", "result", "notify",
}  # fmt: skip
"""What a command is asked to do, which is said on the command line."""


MOST_BYTES = 2**20
"""Of a file with settings; the longest has some thousand."""
_VALUE = {"type": ["string", "number", "boolean"]}
_RULES = {
    "type": "object",
    "additionalProperties": {"anyOf": [_VALUE, {"type": "array", "items": _VALUE}]},
}


@dataclass(frozen=True)
class Place:
    """A line of a file; lines count from 1."""

    path: Path
    line: int

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}"


Line = tuple[str, Place]
"""A token, and where it comes from."""


def config_tokens(parser: argparse.ArgumentParser, options: list[str]) -> list[str]:
    """The options with those of their `--config` file, if any, before them.

    Raises:
        InputError: The file cannot be read, or a line of it breaks a rule.
    """
    lines, options = config_lines(parser, options)
    return [*(token for token, _ in lines), *options]


def config_lines(
    parser: argparse.ArgumentParser, options: list[str]
) -> tuple[list[Line], list[str]]:
    """The lines of the `--config` file that hold beside the options, and the options to parse.

    A switch of the file is undone by `--no-NAME`, and a rule for a parameter by another one for it.

    Raises:
        InputError: As `config_tokens`.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--config")
    try:
        path = first.parse_known_args(options)[0].config
    except argparse.ArgumentError:
        return [], options  # The parser itself says what is wrong with it.
    if not path:
        return [], options
    lines = list(_file_tokens(parser, path))
    ruled = _ruled(options)
    lines = [line for line in lines if _ruled([line[0]]).isdisjoint(ruled)]
    known = {name for action in parser._actions for name in action.option_strings}
    undone = {_opposite(name): name for name in known} if lines else {}
    undoing = [option for option in options if option in undone and option not in known]
    kept = [line for line in lines if line[0] not in {undone[option] for option in undoing}]
    return kept, [option for option in options if option not in undoing]


def located(
    error: InputError, lines: list[Line], problem: Callable[[list[str]], str | None]
) -> InputError:
    """The error with the line of the file that it comes from, if it comes from one.

    Args:
        problem: what is wrong without one of the lines; None for nothing.
    """
    for token, where in lines:
        name, _, value = token.partition("=")
        if name == "--space":  # Without a space nothing else could be wrong either.
            if not is_space(value):
                return InputError(f"{where}: {error}")
        elif problem([other for other, _ in lines if other != token]) is None:
            return InputError(f"{where}: {error}")
    return error


def _ruled(options: list[str]) -> set[str]:
    """The parameters that options rule with `--set` or `--fix`."""
    texts = []
    for option, following in zip(options, [*options[1:], ""], strict=True):
        name, equals, text = option.partition("=")
        if name in ("--set", "--fix"):
            texts.append(text if equals else following)
    return {text.partition("=")[0].strip() for text in texts}


def _opposite(option: str) -> str:
    """`--no-offline` for `--offline`, and the other way round."""
    name = option.removeprefix("--")
    return f"--{name.removeprefix('no-')}" if name.startswith("no-") else f"--no-{name}"


def setting_actions(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Setting -> the option that it is."""
    found = {}
    for action in parser._actions:
        names = [name for name in action.option_strings if name.startswith("--")]
        if names and action.dest not in NOT_SETTINGS:
            found[names[0].removeprefix("--")] = action
    return found


def _composed(path: Path) -> Any:
    """The nodes of a YAML file; None for an empty one, raises InputError for anything else."""
    import yaml

    try:
        text = read_text(path, MOST_BYTES)
    except (FileNotFoundError, UnusableFileError) as error:
        reason = "it does not exist" if isinstance(error, OSError) else str(error)
        raise InputError(
            f"--config must be a YAML file that can be read. Received: {path} ({reason})."
        ) from error
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise InputError(f"--config must be a YAML file. Received: {path}{line}: {problem}.") \
            from error  # fmt: skip
    except RecursionError:
        raise InputError(
            f"--config must be a YAML file of settings. Received: {path}, which is nested too "
            "deeply."
        ) from None


def _file_tokens(parser: argparse.ArgumentParser, given: str) -> Iterator[Line]:
    import yaml

    try:
        path = named_path(given)
    except UnusableFileError as error:
        raise InputError(
            f"--config must be a YAML file. Received: {shown(given)}, but {error}."
        ) from None
    root = _composed(path)
    if root is None:
        return
    if not isinstance(root, yaml.MappingNode):
        raise InputError(
            f"--config must hold settings, one `name: value` a line. Received: {path}, which holds "
            "something else."
        )
    actions, seen = setting_actions(parser), set()
    for key, value in root.value:
        where = Place(path, key.start_mark.line + 1)
        if not isinstance(key, yaml.ScalarNode):
            raise InputError(f"{where}: A setting's name must be a word. Received: something else.")
        name = key.value.replace("_", "-")
        if name not in actions:
            raise InputError(f"{where}: {_unknown(name, actions)}")
        if name in seen:
            raise InputError(f"{where}: A setting is given once. Received: '{name}' again.")
        seen.add(name)
        for token in _token(name, actions[name], value, where):
            yield token, where


def _unknown(name: str, actions: Mapping[str, argparse.Action]) -> str:
    if name.replace("-", "_") in NOT_SETTINGS:
        return f"A file holds settings. Received: '{name}', which belongs on the command line."
    return str(unknown_name("setting", name, sorted(actions)))


def _token(name: str, action: argparse.Action, node: Any, where: Place) -> Iterator[str]:
    """The token of one setting; none for `null` and for a switch that is off."""
    import yaml

    if isinstance(action, argparse._AppendAction):
        yield from _rule_tokens(name, node, where)
        return
    if not isinstance(node, yaml.ScalarNode):
        raise InputError(f"{where}: '{name}' must be a single value. Received: a list or mapping.")
    kind = node.tag.rpartition(":")[2]
    if kind == "null":
        return
    if action.nargs == 0:
        if kind != "bool":
            raise InputError(f"{where}: '{name}' must be true or false. Received: '{node.value}'.")
        if node.value.lower() in ("true", "yes", "on"):
            yield f"--{name}"
        return
    convert = action.type if callable(action.type) else str
    try:
        convert(node.value)
    except argparse.ArgumentTypeError as error:
        raise InputError(f"{where}: '{name}' {error}.") from error
    if action.choices is not None and node.value not in action.choices:
        raise InputError(f"{where}: {unknown_name(name, node.value, action.choices)}")
    yield f"--{name}={node.value}"


def _rule_tokens(name: str, node: Any, where: Place) -> Iterator[str]:
    """The tokens of a mapping, one `NAME=VALUES` for each of its lines; a list is its values."""
    import yaml

    if isinstance(node, yaml.ScalarNode) and node.tag.rpartition(":")[2] == "null":
        return
    if not isinstance(node, yaml.MappingNode):
        raise InputError(
            f"{where}: '{name}' must hold parameters, one `name: values` a line. Received: "
            "something else."
        )
    seen: set[str] = set()
    for key, value in node.value:
        line = Place(where.path, key.start_mark.line + 1)
        if str(key.value) in seen:
            raise InputError(f"{line}: '{key.value}' is given twice. Keep one rule for it.")
        seen.add(str(key.value))
        parts = value.value if isinstance(value, yaml.SequenceNode) else [value]
        if not all(isinstance(part, yaml.ScalarNode) for part in [key, *parts]):
            raise InputError(
                f"{where}: '{name}' must hold a value, a list or a range for each parameter. "
                f"Received: something else for '{key.value}'."
            )
        sign = "<=" if name == "limit" else "="
        yield f"--{name}={key.value}{sign}{','.join(part.value for part in parts)}"


def config_text(parser: argparse.ArgumentParser, values: Mapping[str, Any]) -> str:
    """Settings as a file that `--config` reads, a line each, with the option's help.

    Args:
        values: option's destination -> value; None for one that is not set.
    """
    lines = ["# Settings of a sweep: keras-sweeps run --config FILE"]
    for name, action in setting_actions(parser).items():
        value = values.get(action.dest)
        text = (action.help or "") % {"default": action.default}
        lines.append(f"\n# {' '.join(text.split())}")
        lines.append(
            f"# {name}:" if value is None else f"{name}: {json.dumps(value, ensure_ascii=False)}"
        )
    return "\n".join(lines) + "\n"


def config_schema(parser: argparse.ArgumentParser) -> dict[str, Any]:
    """A JSON schema of the file, for editors."""
    properties = {}
    for name, action in setting_actions(parser).items():
        schema = {"type": "boolean"} if action.nargs == 0 else schema_of(action)
        if isinstance(action, argparse._AppendAction):
            schema = _RULES
        description = " ".join(((action.help or "") % {"default": action.default}).split())
        properties[name] = {**schema, "description": description}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of a keras-sweeps run",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }
