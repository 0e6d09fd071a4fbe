"""Narrows a space: fewer choices, a part of a range, one value. `NAME=a,b`, `NAME=16..64`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from search_spaces.errors import InputError, shortened, shown, unknown_name
from search_spaces.hyperparameters import GivenHyperParameters, declare
from search_spaces.hyperparameters.parameter import (
    Parameter,
    Params,
    Value,
    boolean_parameter,
    choice_parameter,
    fixed_parameter,
    float_parameter,
    int_parameter,
)
from search_spaces.space import Space

RANGE = ".."


@dataclass(frozen=True)
class Rule:
    """What is left of a parameter: the values from `low` to `high`, or those of `values`."""

    name: str
    text: str

    @property
    def values(self) -> tuple[str, ...]:
        """The values as they were written; empty for a range."""
        if RANGE in self.text:
            return ()
        return tuple(part.strip() for part in self.text.split(","))

    @property
    def ends(self) -> tuple[str, str]:
        """Both ends of a range as they were written."""
        low, _, high = self.text.partition(RANGE)
        return low.strip(), high.strip()

    def applied(self, parameter: Parameter) -> Parameter | None:
        """The narrowed parameter, or None where the rule does not fit its range."""
        return self._ranged(parameter) if RANGE in self.text else self._listed(parameter)

    def _listed(self, parameter: Parameter) -> Parameter | None:
        found: list[Value] = []
        for text in self.values:
            value = parsed(parameter, text)
            if value is None:
                return None
            found += [value] if value not in found else []
        if len(found) == 1:
            return _like(parameter, fixed_parameter(parameter.name, found[0]))
        if parameter.kind == "boolean":
            return parameter
        if parameter.kind == "choice":
            found = [choice for choice in parameter.choices if choice in found]
            is_ordered = parameter.ordered
        else:
            found, is_ordered = sorted(found), True
        return _like(
            parameter, choice_parameter(parameter.name, found, ordered=is_ordered),
        )  # fmt: skip

    def _ranged(self, parameter: Parameter) -> Parameter | None:
        try:
            low, high = (float(end) for end in self.ends)
        except ValueError:
            return None
        if low > high:
            return None
        if parameter.kind == "choice":
            numbers = [c for c in parameter.choices if not isinstance(c, str | bool)]
            inside = [str(choice) for choice in numbers if low <= choice <= high]
            return replace(self, text=",".join(inside)).applied(parameter) if inside else None
        ends = [parsed(parameter, end) for end in self.ends]
        if parameter.kind not in ("int", "float") or None in ends:
            return None
        return _like(parameter, replace(parameter, low=ends[0], high=ends[1]))  # type: ignore[arg-type]


def _like(parameter: Parameter, new: Parameter) -> Parameter:
    """The new one with the old one's default where that is left, else the nearest value."""
    return replace(new, default=new.nearest(parameter.default), conditions=parameter.conditions)


def parsed(parameter: Parameter, text: str) -> Value | None:
    """The parameter's value that is written so; None where it has none."""
    if parameter.kind in ("choice", "boolean", "fixed"):
        return next((choice for choice in parameter.choices if _means(text, choice)), None)
    if not text.isascii():  # Python reads the digits of every script.
        return None
    try:
        value = int(text) if parameter.kind == "int" else float(text)
        return value if parameter.contains(value) else None
    except (ValueError, OverflowError):
        return None


def _means(text: str, choice: Value) -> bool:
    if isinstance(choice, str):
        return text == choice
    if text.lower() in ("true", "false"):
        return (text.lower() == "true") == choice and choice in (0, 1)
    try:
        return not isinstance(choice, bool) and text.isascii() and float(text) == choice
    except ValueError:
        return False


def merged_rules(texts: Iterable[str], option: str) -> tuple[str, ...]:
    """Rules as they were given, one for each name: of two the later one holds.

    Raises:
        InputError: One is not of the form NAME=VALUES.
    """
    rules: dict[str, str] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name, values = name.strip(), values.strip()
        form = "NAME=VALUE" if option == "--fix" else "NAME=A,B or NAME=LOW..HIGH"
        if not (name and equals and values) or (option == "--fix" and RANGE in values):
            raise InputError(f"{option} must be {form}. Received: {shown(text)}.")
        if option == "--fix" and "," in values:
            raise InputError(
                f"--fix gives a parameter one value. Received: {shown(text)}. Name several with "
                f"--set {shortened(text)}."
            )
        rules[name] = values
    return tuple(f"{name}={values}" for name, values in rules.items())


def check_names(space: Space, texts: Iterable[str]) -> None:
    """Raises InputError for the first rule, of whatever form, that names no parameter."""
    for text in texts:
        name = text.partition("=")[0].strip()
        if name and all(parameter.name != name for parameter in space.parameters):
            raise _unknown(name, space)


def _unknown(name: str, space: Space) -> InputError:
    names = list(dict.fromkeys(parameter.name for parameter in space.parameters))
    return unknown_name(f"parameter of space '{space.name}'", name, names)


def narrowed(space: Space, narrowing: tuple[str, ...]) -> Space:
    """The space with the rules applied; baselines that it does not hold any more are left out.

    Raises:
        InputError: A rule names no parameter, or values that the parameter does not have.
    """
    if not narrowing:
        return space
    rules = {rule.name: rule for rule in map(_rule, narrowing)}
    for rule in rules.values():
        _check(rule, space)
    parameters = tuple(
        (p.name in rules and rules[p.name].applied(p)) or p for p in space.parameters
    )
    found = replace(
        space, sample=_narrowed_sample(space.sample, rules), narrowing=narrowing,
        see_all=lambda sample: parameters,
    )  # fmt: skip
    kept = tuple(b for b in space.baselines if _holds(found, b.params))
    return replace(found, baselines=kept)


def _rule(text: str) -> Rule:
    name, _, values = text.partition("=")
    return Rule(name, values)


def _check(rule: Rule, space: Space) -> None:
    parameters = [parameter for parameter in space.parameters if parameter.name == rule.name]
    if not parameters:
        error = _unknown(rule.name, space)
        if not space.reference:
            raise error
        raise InputError(
            f"{error} These are the parameters that sampling the space has shown; one that only "
            "appears under other conditions is searched, but cannot be narrowed."
        )
    if all(rule.applied(parameter) for parameter in parameters):
        return
    ranges = list(dict.fromkeys(parameter.range_text() for parameter in parameters))
    if not any(rule.applied(parameter) for parameter in parameters):
        raise InputError(
            f"Parameter '{rule.name}' of space '{space.name}' can be narrowed to values in "
            f"{' or '.join(ranges)}. Received: {shown(rule.text)}."
        )
    raise InputError(
        f"Space '{space.name}' has more than one parameter '{rule.name}', and a rule must hold for "
        f"each: {' and '.join(ranges)}. Received: {shown(rule.text)}, which would leave some of "
        "them as they are. Name values that all of them have."
    )


def _holds(space: Space, params: Params) -> bool:
    try:
        return space.sample(GivenHyperParameters(params)) == params
    except InputError:
        return False


def _narrowed_sample(
    sample: Callable[[Any], Params], rules: Mapping[str, Rule]
) -> Callable[[Any], Params]:
    return lambda hp: sample(NarrowingHyperParameters(hp, rules))


class NarrowingHyperParameters:
    """Passes every question on to another `hp`, with what the rules leave of the range."""

    def __init__(self, hp: Any, rules: Mapping[str, Rule]) -> None:
        self._hp, self._rules = hp, rules
        self._names: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._hp, name)

    @contextlib.contextmanager
    def name_scope(self, name: str) -> Any:
        """As of `hp`; rules name parameters in full."""
        self._names.append(name)
        try:
            with self._hp.name_scope(name):
                yield
        finally:
            self._names.pop()

    def Int(self, name: str, min_value: int, max_value: int, **options: Any) -> Any:
        """A whole number."""
        return self._ask(lambda **o: int_parameter(name, min_value, max_value, **o), options)

    def Float(self, name: str, min_value: float, max_value: float, **options: Any) -> Any:
        """A number."""
        return self._ask(lambda **o: float_parameter(name, min_value, max_value, **o), options)

    def Choice(self, name: str, values: list[Value], **options: Any) -> Any:
        """One of the values."""
        options["ordered"] = bool(options.get("ordered"))
        return self._ask(lambda **o: choice_parameter(name, values, **o), options)

    def Boolean(self, name: str, **options: Any) -> Any:
        """False or True."""
        return self._ask(lambda **o: boolean_parameter(name, **o), options)

    def Fixed(self, name: str, value: Value, **options: Any) -> Any:
        """A constant."""
        return self._ask(lambda **o: fixed_parameter(name, value, **o), options)

    def _ask(self, make: Callable[..., Parameter], options: dict[str, Any]) -> Any:
        scope: Any = contextlib.nullcontext()
        parent, values = options.pop("parent_name", None), options.pop("parent_values", None)
        if parent is not None:
            scope = self._hp.conditional_scope(parent, values)
        parameter = make(**options)
        rule = self._rules.get("/".join([*self._names, parameter.name]))
        with scope:
            return declare(self._hp, (rule and rule.applied(parameter)) or parameter)
