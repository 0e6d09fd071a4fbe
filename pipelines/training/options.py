"""The training options: the one declaration of how every trial of a sweep trains.

The parser of `run`, the settings, sweep.json, the params of runs, checkpoints, and what may change
in a resumed sweep all follow from the fields of `TrainingOptions`. A new option is a field here and
the code that heeds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, astuple, dataclass, field, fields
from typing import Any, Literal

from pipelines.runtime.compute import (
    AUTO,
    BACKENDS,
    DEFAULT_COMPUTE,
    PRECISIONS,
    Compute,
    check_compute,
)
from search_spaces.errors import InputError, unknown_name
from search_spaces.pixels import PIXELS, RAW, UNIT
from search_spaces.space import Space

Change = Literal["never", "if accepted"]
CLASS_WEIGHTS = ("none", "balanced")
FITTED, TRAINED = "fitted", "trained"


@dataclass(frozen=True)
class OptionInfo:
    """What is to be known of one training option, beside its name, type and default.

    Attributes:
        help: what the command line says of it.
        group: the group of options that lists it.
        choices: its values, where they are few.
        stored: its name in sweep.json and in the params of runs, where that is not its own: the
            first releases called it so, and what is stored keeps its name.
        change: whether it may change in a sweep that has begun.
        identifies: whether what was trained with one value cannot go on with another.
        before: its value in what was stored before there was such an option; None for the default.
    """

    help: str
    group: str = "training"
    choices: tuple[str, ...] = ()
    metavar: str | None = None
    stored: str = ""
    change: Change = "never"
    identifies: bool = False
    before: Any = None


def _option(default: Any, text: str, **info: Any) -> Any:
    return field(default=default, metadata={"option": OptionInfo(text, **info)})


@dataclass(frozen=True)
class TrainingOptions:
    """How trials train, by the names of the options.

    Attributes:
        early_stopping: epochs without improvement of the objective after which a trial ends; None
            for never.
        class_weights: `balanced` weighs the loss of rare classes up; `none` does not.
        backend, precision, jit: as `pipelines.runtime.compute.Compute`; a sweep that has begun has
            no `auto` of them left, but for one of before there were such options.
        pixels: what a model gets in training: `raw` from 0 to 255, `unit` from 0 to 1, or `auto`:
            0 to 1 unless the model scales its input itself, decided for each model. The stored
            model takes raw pixels all the same.
        deterministic: whether trials use only operations that repeat bit for bit.
        measured_weights: what is measured and kept: `fitted`, with statistics of batch
            normalisation that fit the weights (`MeasuredWeights`), or `trained`, as Keras leaves
            them.
    """

    early_stopping: int | None = _option(
        None, "end a trial after N epochs without improvement (default: never)",
        metavar="N", stored="patience", change="if accepted",
    )  # fmt: skip
    class_weights: str = _option(
        "none",
        "balanced gives rare classes a higher weight in the loss (default: %(default)s)",
        group="your own data", choices=CLASS_WEIGHTS, identifies=True,
    )  # fmt: skip
    backend: str = _option(
        "tensorflow",
        "Keras backend; jax and torch are extras to install (default: %(default)s)",
        choices=BACKENDS,
    )
    precision: str = _option(
        "float32",
        "Keras dtype policy of all trials; auto measures once which is faster here "
        "(default: %(default)s)",
        choices=(*PRECISIONS, AUTO),
    )
    jit: str = _option(
        AUTO,
        "compile training steps with XLA (or torch.compile); auto decides by backend and device "
        "(default: %(default)s)",
        choices=(AUTO, "on", "off"),
    )
    pixels: str = _option(
        AUTO,
        "input of models in training: raw pixels from 0 to 255, unit (divided by 255), or auto: "
        "unit for models of your own that do not scale their input themselves; the stored model "
        "takes raw pixels all the same (default: %(default)s)",
        group="your own data", choices=PIXELS, identifies=True, before=RAW,
    )  # fmt: skip
    deterministic: bool = _option(
        False,
        "use only deterministic operations, so that `replay` repeats bit for bit (slower; not "
        "needed on CPUs)",
    )
    measured_weights: str = _option(
        FITTED,
        "fitted evaluates and keeps models with batch normalisation statistics recomputed from "
        "training images, and with averaged weights if the optimizer averages them; trained, as "
        "Keras leaves them after training (default: %(default)s)",
        choices=(FITTED, TRAINED), identifies=True, before=TRAINED,
    )  # fmt: skip

    @property
    def compute(self) -> Compute:
        """With what numbers are computed."""
        return Compute(self.backend, self.precision, self.jit)

    def check(self, space: Space | None = None) -> None:
        """Raises InputError for the first option whose value cannot be.

        Args:
            space: what is trained; None where that is not known yet.
        """
        check_compute(self.backend, self.precision, self.jit)
        for name, info in option_infos().items():
            value = getattr(self, name)
            if info.choices and value not in info.choices:
                raise unknown_name(name.replace("_", " "), value, info.choices)
        if self.pixels == UNIT and space is not None and not space.reference:
            raise InputError(
                f"--pixels is for a space of your own. Received: {self.pixels} and --space "
                f"{space.name}, whose models rescale pixels themselves. Leave --pixels out."
            )

    def stored(self) -> dict[str, Any]:
        """Stored name -> value, as `from_stored` reads it."""
        return {info.stored or n: getattr(self, n) for n, info in option_infos().items()}

    @property
    def identity(self) -> list[Any]:
        """What trained numbers follow from; options as they were before they existed add nothing.

        So a trial that began before an option existed goes on from its checkpoint.
        """
        weights = [] if self.class_weights == "none" else [self.class_weights]
        compute = [] if self.compute == DEFAULT_COMPUTE else [astuple(self.compute)]
        more = {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.metadata["option"].identifies
            and f.name != "class_weights"
            and getattr(self, f.name) != _before(f)
        }
        return [*weights, *compute, *([more] if more else [])]


DEFAULT_TRAINING = TrainingOptions()


def option_infos() -> dict[str, OptionInfo]:
    """Name -> what is to be known of the option, in the order of declaration."""
    return {f.name: f.metadata["option"] for f in fields(TrainingOptions)}


def from_stored(values: Mapping[str, Any]) -> TrainingOptions:
    """The options in what was stored; what held before for those that did not exist then.

    Args:
        values: by stored name; as they are, or as the texts that a run's params hold.
    """
    found: dict[str, Any] = {}
    for f in fields(TrainingOptions):
        name = f.metadata["option"].stored or f.name
        found[f.name] = _value(values[name], f.default) if name in values else _before(f)
    return TrainingOptions(**found)


def _before(option: Field[Any]) -> Any:
    info: OptionInfo = option.metadata["option"]
    return option.default if info.before is None else info.before


def _value(stored: Any, default: Any) -> Any:
    """A value that may have become a text, such as 'True', 'None' or '3'."""
    if not isinstance(stored, str) or isinstance(default, str):
        return stored
    if isinstance(default, bool):
        return stored == "True"
    return None if stored == "None" else int(stored)
