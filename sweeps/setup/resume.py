"""Which sweep a command goes on with, and which of its settings may be different now."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from pipelines.data.custom.sources import is_custom
from pipelines.runtime.compute import AUTO
from pipelines.training.options import Change, option_infos
from search_spaces.errors import InputError
from search_spaces.registry import space_called_earlier
from search_spaces.user_spaces.reference import (
    GivenSpace,
    is_given,
    label_of,
    other_object,
)
from sweeps.outcome import Outcome
from sweeps.settings import SweepSettings, check_name
from sweeps.state.paths import SweepPaths
from sweeps.state.sweep_file import (
    SweepFile,
    check_addresses,
    find_sweep,
    read_sweep_file,
    with_passwords,
)
from tracking.tags import Tag


def _training(change: Change) -> dict[str, str]:
    """Training options, with how the command line calls them, by whether they may change."""
    found = {name for name, info in option_infos().items() if info.change == change}
    return {name: f"--{name.replace('_', '-')}" for name in found}


# Trials that were trained with the one cannot be compared with, or continued under, the other.
_FIXED = {
    "space": "--space",
    "dataset": "--dataset",
    "objective": "--objective",
    "seed": "--seed",
    "num_epochs": "--epochs",
    "baselines": "--no-baselines",
    "engine": "--engine",
    "oracle": "--oracle",
    "image_size": "--image-size",
    "resize": "--resize",
    "color": "--color",
    "broken": "--broken",
    "narrowed": "--set",
    "fixed": "--fix",
    "limits": "--limit",
    **_training("never"),
}
# The sweep stays one, but its trials no longer follow from its first settings alone.
_MATTERING = {
    "sampler": "--sampler",
    "pruner": "--pruner",
    "min_epochs": "--min-epochs",
    "reduction_factor": "--reduction-factor",
    "protect_baselines": "--protect-baselines",
    "experiment": "--experiment",
    **_training("if accepted"),
}


def sweep_to_resume(
    settings: SweepSettings, given: Collection[str], *, resume: bool
) -> SweepFile | None:
    """The sweep that the command goes on with: asked for by --resume, or named and unfinished.

    Raises:
        InputError: --resume, and there is none.
    """
    work_dir = Path(settings.work_dir)
    if resume:
        return read_sweep_file(find_sweep(work_dir, settings.name).state)
    if settings.name is None or "name" not in given:
        return None
    check_name(settings.name)
    paths = SweepPaths(work_dir.absolute(), settings.name)
    if not paths.state.exists():
        return None
    file = read_sweep_file(paths.state)
    # Where the file system ignores case, it may be the file of a sweep with another name.
    return None if file.is_finished or file.settings.name != settings.name else file


def how_it_ended(paths: SweepPaths) -> tuple[Outcome, str]:
    """How a sweep that has ended did, and by which rule."""
    from tracking.spool.records import SweepEnd
    from tracking.spool.spool import Spool

    spool = Spool(paths.spool, read_only=True)
    ends = [record for record in spool.replay() if isinstance(record, SweepEnd)]
    done = bool(ends) and ends[-1].status == "FINISHED" and not spool.aside_lines()
    reason = ends[-1].tags.get(Tag.STOPPED_BY, "") if ends else ""
    return Outcome.DONE if done else Outcome.FAILED, reason


def in_names_of_now(
    settings: SweepSettings, given: Collection[str], *, resume: bool
) -> SweepSettings:
    """Settings of the command that began a sweep before the core spaces, given again.

    What `cnn` and `mlp` meant then has other names now; other settings stay as they are.

    Raises:
        InputError: As `sweep_to_resume`.
    """
    earlier = sweep_to_resume(settings, given, resume=resume)
    if earlier is None or not earlier.has_earlier_names:
        return settings
    called = space_called_earlier(settings.space)
    return replace(settings, space=called) if called == earlier.settings.space else settings


def merged(
    stored: SweepFile, settings: SweepSettings, given: Collection[str], *, accept: bool
) -> SweepSettings:
    """The stored settings with what was given on the command line.

    Args:
        given: names of the settings that were given.
        accept: whether changes that matter are accepted.

    Raises:
        InputError: A setting that was given differs and must not, or needs to be accepted.
    """
    old, asked, known = stored.settings, settings.values(), stored.settings.values()
    # Whoever resumes a sweep has found its folder, so that is right as it is.
    changed = [
        name
        for name in known
        if name in given and asked[name] != known[name] and name != "work_dir"
    ]
    if "space" in changed and is_given(old.space) and is_given(settings.space):
        raise other_object(old.space)
    fixed = [name for name in changed if name in _FIXED and not _same(name, stored, settings)]
    rule = "This cannot change in a sweep that has begun; start a new sweep for it."
    _refuse(fixed, _FIXED, old, settings, rule)
    if not accept:
        mattering = [name for name in changed if name in _MATTERING]
        rule = "Leave the option out, or accept the change with --accept-changes."
        _refuse(mattering, _MATTERING, old, settings, rule)
    taken = {name: asked[name] for name in changed if name not in _FIXED}
    if isinstance(settings.space, GivenSpace):  # The stored name has no object.
        taken["space"] = settings.space
    if "dataset" in changed and is_repointed(stored, settings):
        taken["dataset"] = settings.dataset
    new = with_passwords(old.with_values(**taken, work_dir=settings.work_dir))
    check_addresses(new, ("tracking_uri", "storage"))
    return new


def _same(name: str, stored: SweepFile, settings: SweepSettings) -> bool:
    """Whether a name that differs means the same: what was chosen when the sweep began.

    Or it may: the user's own data in another place. Whoever opens them looks at their content.
    """
    if name in ("precision", "jit", "pixels"):
        return bool(settings.values()[name] == AUTO)
    if name == "space":  # The command that began it, given again.
        asked = space_called_earlier(settings.space)
        return stored.has_earlier_names and asked == stored.settings.space
    if name != "dataset":
        return False
    return settings.dataset == stored.data_name or is_repointed(stored, settings)


def _shown(name: str, settings: SweepSettings) -> object:
    """The value as its option means it: --no-baselines turns `baselines` off."""
    value = settings.values()[name]
    if name == "space":
        return label_of(settings.space)
    if isinstance(value, tuple):
        return " ".join(value) or "nothing"
    return not value if name == "baselines" else value


def _refuse(
    names: list[str],
    options: dict[str, str],
    old: SweepSettings,
    new: SweepSettings,
    rule: str,
) -> None:
    if names:
        changes = "; ".join(
            f"{options[name]} was {_shown(name, old)}, is {_shown(name, new)}" for name in names
        )
        raise InputError(f"Sweep '{old.name}' has begun and keeps its settings: {changes}. {rule}")


def is_repointed(earlier: SweepFile, settings: SweepSettings) -> bool:
    """Whether a sweep over custom data is given another path to them."""
    old, new = earlier.settings.dataset, settings.dataset
    return is_custom(old) and is_custom(new) and new not in (old, earlier.data_name)
