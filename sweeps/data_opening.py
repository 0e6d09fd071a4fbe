"""Opens a sweep's data: prepared on first use, and found again by name and content afterwards."""

from __future__ import annotations

import sys
from pathlib import Path

from pipelines.download import print_progress
from pipelines.image_options import ImageOptions
from pipelines.image_sets import UnavailableError
from pipelines.objectives import check_objective
from pipelines.own_data import prepare_own, print_prepared
from pipelines.own_sources import is_own, own_source
from pipelines.prepared import PreparedData, open_prepared, prepare
from search_spaces.errors import InputError
from sweeps.settings import SweepSettings
from sweeps.sweep_file import SweepFile

DEFAULT_DATASET, FALLBACK_DATASET = "mnist", "digits"


def sweep_data(settings: SweepSettings, earlier: SweepFile | None = None) -> PreparedData:
    """The data of a new sweep, or those that a sweep which goes on began with.

    Raises:
        InputError: They cannot be had, have changed, or do not suit the objective.
    """
    root = Path(settings.work_dir) / "data"
    if earlier is None:
        data = prepare_data(settings.dataset, root, settings.image_options)
    else:
        data = reopen_data(
            earlier.data_name, earlier.data_fingerprint, root, settings, watch_source=True
        )
    check_objective(settings.objective, data.num_classes, data.name)
    return data


def prepare_data(
    dataset: str | None, root: Path, options: ImageOptions | None = None
) -> PreparedData:
    """The prepared data; without a name MNIST, or the bundled digits where it cannot be had."""
    if dataset is not None and is_own(dataset):
        return prepare_own(own_source(dataset), root, options, print_prepared)
    if dataset is not None:
        return prepare(dataset, root, print_progress)
    try:
        return prepare(DEFAULT_DATASET, root, print_progress)
    except UnavailableError as error:
        print(
            f"WARNING: sweeping the bundled digits (1,797 images), because: {error}",
            file=sys.stderr,
            flush=True,
        )
        return prepare(FALLBACK_DATASET, root, print_progress)


def reopen_data(
    name: str,
    content: str,
    root: Path,
    settings: SweepSettings | None = None,
    *,
    watch_source: bool = False,
) -> PreparedData:
    """The prepared data set of that name and content; of a known set what its name means now.

    Data of the user's own are found in the work folder, wherever their source is now.

    Args:
        content: their fingerprint.
        settings: those of the sweep, which know the source; None where nobody does.
        watch_source: whether a source that is still there must be what it was.

    Raises:
        InputError: They are gone and so is the source, or the source has changed.
    """
    if not is_own(name):
        return prepare_data(name, root)
    found = open_prepared(root, name, content)
    if found is not None and found.fingerprint != content:
        found = None
    dataset = settings.dataset if settings is not None else None
    source = own_source(dataset) if dataset is not None and is_own(dataset) else None
    there = source is not None and (source.path is None or source.path.exists())
    if found is not None and (
        not watch_source or not there or source is None or source.kind == "function"
    ):
        return found
    if source is None or settings is None or not there:
        place = f"its source {dataset} is gone, too" if dataset else "its source is not known here"
        raise InputError(
            "A data set of your own must be prepared in the work folder, or be where it was. "
            f"Received: {name} with content {content[:12]}, which is not in {root}, and {place}. "
            "Name the right --work-dir, or prepare it again there: keras-sweeps explore "
            "--dataset SOURCE with the image options of the sweep."
        )
    now = prepare_data(source.text, root, settings.image_options)
    if now.fingerprint != content:
        raise InputError(
            "A sweep goes on over what it began with. Received: "
            f"{source.text}, whose content was {content[:12]} and is {now.fingerprint[:12]} now. "
            "Put the old content back, or start a new sweep."
        )
    return now
