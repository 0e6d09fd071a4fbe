"""Opens a sweep's data: prepared on first use, and found again by name and content afterwards."""

from __future__ import annotations

import logging
import shlex
from dataclasses import dataclass
from pathlib import Path

from pipelines.data.builtin import Progress, UnavailableError, print_progress
from pipelines.data.custom.cache import megabytes, superseded
from pipelines.data.custom.prepare import is_unchanged, prepare_custom, print_prepared
from pipelines.data.custom.sources import CustomSource, custom_source, is_custom
from pipelines.data.prepared import PreparedData, open_prepared, prepare
from pipelines.images.options import ImageOptions
from pipelines.objectives import check_objective
from search_spaces.errors import InputError
from sweeps.settings import SweepSettings
from sweeps.setup.resume import is_repointed
from sweeps.state.sweep_file import SweepFile

log = logging.getLogger(__name__)
MUCH_BYTES = 10**9
"""From here on a sweep says what earlier contents of its source take."""
DEFAULT_DATASET, FALLBACK_DATASET = "mnist", "digits"


@dataclass(frozen=True)
class DataProgress:
    """Who is told how a download stands, in bytes, and how preparing custom data does, in images.

    By default a person, on standard error.
    """

    download: Progress = print_progress
    preparing: Progress = print_prepared


SHOWN = DataProgress()
SILENT = DataProgress(lambda *_: None, lambda *_: None)


def sweep_data(
    settings: SweepSettings, earlier: SweepFile | None = None, progress: DataProgress = SHOWN
) -> PreparedData:
    """The data of a new sweep, or those that a sweep which goes on began with.

    Raises:
        InputError: They cannot be had, have changed, or do not suit the objective.
    """
    root = Path(settings.work_dir) / "data"
    if earlier is None:
        data = prepare_data(settings.dataset, root, settings.image_options, progress=progress)
    else:
        data = reopen_data(
            earlier.data_name,
            earlier.data_fingerprint,
            root,
            settings,
            progress=progress,
            watch_source=True,
            moved=is_repointed(earlier, settings),
        )
    check_objective(settings.objective, data.num_classes, data.name)
    return data


def prepare_data(
    dataset: str | None,
    root: Path,
    options: ImageOptions | None = None,
    name: str | None = None,
    progress: DataProgress = SHOWN,
) -> PreparedData:
    """The prepared data; without a name MNIST, or the bundled digits where it cannot be had.

    Args:
        name: what data of the user's own are called, where that is known already.
    """
    if dataset is not None and is_custom(dataset):
        source = custom_source(dataset)
        return _prepare_custom(source, root, options or ImageOptions(), name, progress)
    if dataset is not None:
        return prepare(dataset, root, progress.download)
    try:
        return prepare(DEFAULT_DATASET, root, progress.download)
    except UnavailableError as error:
        log.warning("using the bundled digits data set (1,797 images) instead of MNIST: %s", error)
        return prepare(FALLBACK_DATASET, root, progress.download)


def reopen_data(
    name: str,
    content: str,
    root: Path,
    settings: SweepSettings | None = None,
    *,
    progress: DataProgress = SHOWN,
    watch_source: bool = False,
    moved: bool = False,
) -> PreparedData:
    """The prepared data set of that name and content; of a known set what its name means now.

    Data of the user's own are found in the work folder, wherever their source is now.

    Args:
        content: their fingerprint.
        settings: those of the sweep, which know the source; None where nobody does.
        watch_source: whether a source that is still there must be what it was.
        moved: whether the source is said to be elsewhere now; then it must be there and the same.

    Raises:
        InputError: They are gone and so is the source, or the source has changed.
    """
    if not is_custom(name):
        return prepare_data(name, root, progress=progress)
    found = open_prepared(root, name, content)
    if found is not None and found.fingerprint != content:
        found = None
    dataset = settings.dataset if settings is not None else None
    source = custom_source(dataset) if dataset is not None and is_custom(dataset) else None
    there = source is not None and (source.path is None or source.path.exists())
    if found is not None and not moved:
        if not watch_source or not there or source is None or source.kind == "function":
            return found
        assert settings is not None
        if is_unchanged(found, source, settings.image_options, root):
            return found
    if source is None or settings is None or (not there and not moved):
        place = f"its source {dataset} is gone" if dataset else "its source is not known here"
        raise InputError(
            f"The data set {name} (fingerprint {content[:12]}) has no complete copy in {root}, and "
            f"{place}. Name the right --work-dir, or prepare it again there: keras-sweeps explore "
            "--dataset SOURCE with the image options of the sweep."
        )
    now = prepare_data(source.text, root, settings.image_options, name, progress)
    if now.fingerprint != content:
        raise InputError(
            f"The sweep cannot continue: {source.text} has changed since it began (fingerprint "
            f"{content[:12]}, now {now.fingerprint[:12]}). Put the old content back, or start a "
            "new sweep."
        )
    return now


def _prepare_custom(
    source: CustomSource,
    root: Path,
    options: ImageOptions,
    name: str | None,
    progress: DataProgress,
) -> PreparedData:
    data = prepare_custom(source, root, options, progress.preparing, name)
    others = superseded(root, source, data)
    if sum(other.num_bytes for other in others) >= MUCH_BYTES:
        log.warning(
            "earlier prepared versions of %s take %s in %s. `keras-sweeps explore --clean "
            "--dataset %s` removes those that no sweep uses.",
            source.text, megabytes(others), root, shlex.quote(source.text),
        )  # fmt: skip
    return data
