"""The data set as sweeps train on it."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from pipelines.data.custom.sources import check_dataset
from pipelines.data.prepared import PreparedData
from pipelines.images.options import ImageOptions
from sweeps.api.arguments import progress_of
from sweeps.options import named_as_in_python, settings_of
from sweeps.reporting.console import warnings_shown
from sweeps.setup.data import prepare_data
from sweeps.setup.given_arrays import stored_dataset


@named_as_in_python
def load_dataset(
    dataset: object = None,
    *,
    work_dir: str | Path = ".sweeps",
    image_size: str | int | tuple[int, int] | None = None,
    resize: str = ImageOptions.resize,
    color: str = ImageOptions.color,
    broken: str = ImageOptions.broken,
    verbose: int = 1,
) -> PreparedData:
    """The data set as sweeps train on it; prepared on first use.

    `load_dataset("mnist").arrays("train")` are pixels (n, height, width, channels) uint8, mapped
    from disk, and labels (n,); the parts are train, validation and test.

    Args:
        dataset: as in `run`.

    Raises:
        InputError: It cannot be had.
    """
    folder = Path(work_dir).absolute()
    given = {
        "dataset": stored_dataset(dataset, folder), "image_size": image_size, "resize": resize,
        "color": color, "broken": broken,
    }  # fmt: skip
    settings = settings_of(given)
    check_dataset(settings.dataset, settings.image_options)
    with warnings_shown() if verbose else nullcontext():
        return prepare_data(
            settings.dataset, folder / "data", settings.image_options, progress=progress_of(verbose)
        )
