"""`explore`: what a data set holds, and a picture of it."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from pipelines.data.arrays import row_pieces
from pipelines.data.custom.cache import megabytes, remove_unused, superseded
from pipelines.data.custom.prepare import prepare_own, print_prepared
from pipelines.data.custom.sources import OwnSource, check_dataset, is_own, own_source
from pipelines.data.download import print_progress
from pipelines.data.prepared import PARTS, PreparedData, prepare
from pipelines.images.options import add_image_options, image_options
from pipelines.runtime.filesystem import check_writable, new_picture
from search_spaces.errors import InputError

DESCRIPTION = "Look at a data set: shapes, ranges, class counts, and a picture of samples."
EXAMPLES = """
examples:
  {prog} --dataset digits
  {prog} --dataset mnist --picture samples.png --seed 3
  {prog} --dataset photos/ --image-size 64x64 --broken skip
"""
NUM_SAMPLES = 25
MAX_ROWS = 50
"""Classes in the table of counts; of more the largest and the smallest are shown."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `explore`."""
    parser.add_argument(
        "--dataset",
        required=True,
        metavar="NAME",
        help="mnist, fashion_mnist, cifar10, digits, or your own: a folder of class folders, .npz, "
        ".csv, file.py:function",
    )
    parser.add_argument(
        "--picture",
        metavar="FILE",
        help="where the picture of samples goes; must be new (default: "
        "<work dir>/pictures/<data set>-samples.png, drawn anew each time)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="which samples are drawn (default: %(default)s)",
    )
    parser.add_argument("--work-dir", default=".sweeps", metavar="DIR",
                        help="prepared data (default: %(default)s)")  # fmt: skip
    own = parser.add_argument_group("your own data")
    own.add_argument(
        "--clean",
        action="store_true",
        help="remove what was prepared from this source before, of other content or with other "
        "options, and no sweep in the work folder refers to",
    )
    add_image_options(own)


def run(arguments: argparse.Namespace) -> int:
    """Prints the tables and writes the picture; returns the exit status."""
    if arguments.seed < 0:
        raise InputError(f"--seed must be at least 0. Received: {arguments.seed}.")
    dataset, options = arguments.dataset, image_options(arguments)
    check_dataset(dataset, options)
    if arguments.clean and not is_own(dataset):
        raise InputError(f"--clean is for your own data. Received: it and {dataset}. Leave it out.")
    root = Path(arguments.work_dir)
    for folder in (root / "data", root / "pictures"):
        check_writable(folder, "--work-dir")
    picture = None if arguments.picture is None else new_picture(arguments.picture)
    if is_own(dataset):
        data = prepare_own(own_source(dataset), root / "data", options, print_prepared)
    else:
        data = prepare(dataset, root / "data", print_progress)
    _print_tables(data)
    if is_own(dataset):
        _print_earlier(own_source(dataset), data, root, clean=arguments.clean)
    picture = picture or root / "pictures" / f"{data.name}-samples.png"
    count = _draw(data, picture, arguments.seed)
    print(f"picture of {count} training samples: {picture}")
    return 0


def _print_earlier(source: OwnSource, data: PreparedData, root: Path, *, clean: bool) -> None:
    """Says what else was prepared from the source, or removes what of it nobody needs."""
    found = superseded(root / "data", source, data)
    if not found:
        return
    if not clean:
        print(
            f"prepared before, of other content or with other options: {len(found)}, "
            f"{megabytes(found)}; --clean removes what no sweep in {root} refers to"
        )
        return
    total = megabytes(found)
    removed, kept = remove_unused(found, root)
    print(
        f"of {len(found)} prepared before ({total}) removed: {len(removed)}; kept for sweeps in "
        f"{root}: {len(kept)}"
    )


def _print_tables(data: PreparedData) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else 120, markup=False)
    console.print(f"{data.name} ({data.origin})", style="bold", highlight=False)
    console.print(f"sha256 {data.fingerprint}", highlight=False)
    console.print(f"split: {data.split}", highlight=False)
    for note in data.notes:
        console.print(f"note: {note}", highlight=False)
    shapes = Table("part", "images", "shape", "type", "range", "mean", "sd", box=box.SIMPLE_HEAD)
    counts = Table("class", *PARTS, box=box.SIMPLE_HEAD)
    columns = []
    for part in PARTS:
        x, y = data.arrays(part)
        shapes.add_row(
            part, f"{len(x):,}", "x".join(map(str, x.shape[1:])), str(x.dtype),
            *_pixel_texts(x),
        )  # fmt: skip
        columns.append(np.bincount(y, minlength=data.num_classes))
    shown = np.arange(data.num_classes)
    if data.num_classes > MAX_ROWS:
        by_size = np.argsort(-columns[0], kind="stable")
        shown = np.concatenate([by_size[: MAX_ROWS // 2], by_size[-(MAX_ROWS // 2) :]])
    for label in shown:
        counts.add_row(data.class_names[label], *(f"{int(column[label]):,}" for column in columns))
    console.print(shapes, counts)
    if len(shown) < data.num_classes:
        console.print(f"the largest and the smallest of {data.num_classes:,} classes")


def _pixel_texts(x: np.ndarray) -> tuple[str, str, str]:
    """Range, mean and standard deviation of all pixels, read piece by piece."""
    counts = np.zeros(256, np.int64)
    for piece in row_pieces(x):
        counts += np.bincount(piece.reshape(-1), minlength=256)
    values, total = np.arange(256), counts.sum()
    mean = float((counts * values).sum() / total)
    deviation = float(np.sqrt((counts * (values - mean) ** 2).sum() / total))
    there = np.flatnonzero(counts)
    return f"{there[0]} to {there[-1]}", f"{mean:.1f}", f"{deviation:.1f}"


def _draw(data: PreparedData, path: Path, seed: int) -> int:
    """Draws samples; answers how many."""
    from pipelines.evaluation.figures import draw_images

    x, y = data.arrays("train")
    count = min(NUM_SAMPLES, len(x))
    chosen = np.sort(np.random.default_rng(seed).choice(len(x), count, replace=False))
    path.parent.mkdir(parents=True, exist_ok=True)
    captions = [data.class_names[label] for label in y[chosen]]
    draw_images(x[chosen], captions, f"{data.name}: {count} training samples", path)
    return count
