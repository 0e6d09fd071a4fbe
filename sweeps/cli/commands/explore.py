"""`explore`: what a data set holds, and a figure of samples."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipelines.data.builtin import print_progress
from pipelines.data.custom.cache import megabytes, remove_unused, superseded
from pipelines.data.custom.prepare import prepare_custom, print_prepared
from pipelines.data.custom.sources import CustomSource, check_dataset, custom_source, is_custom
from pipelines.data.prepared import PreparedData, prepare
from pipelines.evaluation.dataset_summary import draw_samples, largest_and_smallest, summarize
from pipelines.runtime.filesystem import check_writable, new_picture
from search_spaces.errors import InputError
from sweeps.cli.exit_codes import DONE
from sweeps.cli.shared_options import add_image_options, argument_type, image_options, type_of
from sweeps.option_values import path
from sweeps.reporting.console import table_console

DESCRIPTION = "Look at a data set: shapes, ranges, class counts, and a figure of samples."
EXAMPLES = """
examples:
  {prog} --dataset digits
  {prog} --dataset mnist --picture samples.png --seed 3
  {prog} --dataset photos/ --image-size 64x64 --broken skip
"""
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
        type=argument_type(path),
        metavar="FILE",
        help="file for the figure of samples; must be new (default: "
        "<work dir>/pictures/<data set>-samples.png, overwritten each time)",
    )
    parser.add_argument(
        "--seed",
        type=type_of("seed"),
        default=0,
        metavar="N",
        help="which samples are drawn (default: %(default)s)",
    )
    parser.add_argument("--work-dir", type=type_of("work_dir"), default=".sweeps", metavar="DIR",
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
    """Prints the tables and writes the figure; returns the exit status."""
    dataset, options = arguments.dataset, image_options(arguments)
    check_dataset(dataset, options)
    if arguments.clean and not is_custom(dataset):
        raise InputError(f"--clean is for your own data. Received: it and {dataset}. Leave it out.")
    root = Path(arguments.work_dir)
    for folder in (root / "data", root / "pictures"):
        check_writable(folder, "--work-dir")
    picture = None if arguments.picture is None else new_picture(arguments.picture)
    if is_custom(dataset):
        data = prepare_custom(custom_source(dataset), root / "data", options, print_prepared)
    else:
        data = prepare(dataset, root / "data", print_progress)
    _print_tables(data)
    if is_custom(dataset):
        _print_earlier(custom_source(dataset), data, root, clean=arguments.clean)
    picture = picture or root / "pictures" / f"{data.name}-samples.png"
    count = draw_samples(data, picture, arguments.seed)
    print(f"figure of {count} training samples: {picture}")
    return DONE


def _print_earlier(source: CustomSource, data: PreparedData, root: Path, *, clean: bool) -> None:
    """Says what else was prepared from the source, or removes what no sweep needs."""
    found = superseded(root / "data", source, data)
    if not found:
        return
    if not clean:
        print(
            f"{len(found)} earlier prepared versions (other content or options) take "
            f"{megabytes(found)}; --clean removes those that no sweep in {root} uses"
        )
        return
    total = megabytes(found)
    removed, kept = remove_unused(found, root)
    print(
        f"removed {len(removed)} of {len(found)} earlier prepared versions ({total}); "
        f"{len(kept)} are used by sweeps in {root}"
    )


def _print_tables(data: PreparedData) -> None:
    from rich import box
    from rich.table import Table

    summary = summarize(data)
    console = table_console()
    console.print(f"{data.name} ({data.origin})", style="bold", highlight=False)
    console.print(f"sha256 {data.fingerprint}", highlight=False)
    console.print(f"split: {data.split}", highlight=False)
    for note in data.notes:
        console.print(f"note: {note}", highlight=False)
    shapes = Table("part", "images", "shape", "type", "range", "mean", "sd", box=box.SIMPLE_HEAD)
    for part in summary:
        shapes.add_row(
            part.name, f"{part.num_images:,}", "x".join(map(str, part.shape)), part.dtype,
            f"{part.lowest} to {part.highest}", f"{part.mean:.1f}", f"{part.deviation:.1f}",
        )  # fmt: skip
    counts = Table("class", *(part.name for part in summary), box=box.SIMPLE_HEAD)
    shown = largest_and_smallest(summary[0].class_counts, MAX_ROWS)
    for label in shown:
        cells = (f"{part.class_counts[label]:,}" for part in summary)
        counts.add_row(data.class_names[label], *cells)
    console.print(shapes, counts)
    if len(shown) < data.num_classes:
        console.print(f"the largest and the smallest of {data.num_classes:,} classes")
