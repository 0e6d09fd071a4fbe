"""A user's own data set, prepared: split, streamed into mapped arrays, found again by its content.

Beside what `pipelines/data/prepared.py` writes, the folder has `source.json`: where the data came
from, with which options, and a signature of the source, so that an unchanged one is not read again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from pipelines.data.array_files import NpyWriter, npz_arrays
from pipelines.data.arrays import fingerprint
from pipelines.data.custom.cache import data_name, earlier_data, owner_of
from pipelines.data.custom.content import Content, array_content, picture_content
from pipelines.data.custom.function_source import call_function
from pipelines.data.custom.listing import PictureList, list_folder, list_table
from pipelines.data.custom.sources import CustomSource
from pipelines.data.prepared import (
    PARTS,
    SOURCE_FILE,
    PreparedData,
    open_prepared,
    place,
    prepared_folder,
    unfinished_folder,
)
from pipelines.data.splits import Division, divide, some
from pipelines.images.options import ImageOptions
from search_spaces.errors import InputError

FORMAT = 2
"""Raised when the same source would be prepared to other arrays."""

Say = Callable[[str, int, int | None], None]
"""Called with what is done, images so far and images in all; or bytes so far and None."""


def prepare_custom(
    source: CustomSource,
    root: Path,
    options: ImageOptions | None = None,
    say: Say = lambda *_: None,
    name: str | None = None,
) -> PreparedData:
    """The prepared data set of a source under `root`, made when it is new or has changed.

    Args:
        name: what it is called; None for the name of the source, or another one where a different
            source has that already.

    Raises:
        InputError: The source is not what it should be; the message says in what.
        OSError: `root` cannot be written.
    """
    options = options or ImageOptions()
    source.check()
    listed = _listed(source)
    signature = _signature(source, options, listed)
    earlier = earlier_data(root, source)
    for known in earlier:
        if signature and (known.source, known.signature) == (source.text, signature):
            found = open_prepared(root, known.name, known.fingerprint)
            if found is not None and name in (None, found.name):
                return found
    with unfinished_folder(root) as folder:
        scratch = folder / "called"
        if listed is not None:
            look = partial(say, f"looking at {source.name}")
            content = picture_content(listed, options, source.text, look)
        elif source.kind == "npz":
            assert source.path is not None
            content = array_content(npz_arrays(source.path), options, source.text)
        else:
            scratch.mkdir()
            read = partial(say, f"calling {source.name}")
            content = array_content(call_function(source, scratch, read), options, source.text)
        data = _write(source, content, options, folder, say)
        data = _named(data, name or data_name(source, data.fingerprint, earlier), root)
        shutil.rmtree(scratch, ignore_errors=True)
        body = {
            "source": source.text,
            "owner": owner_of(data, source, earlier),
            "options": asdict(options),
            "signature": signature,
            "format": FORMAT,
        }
        (folder / SOURCE_FILE).write_text(json.dumps(body, indent=1), encoding="utf-8")
        return place(folder, root, data, (SOURCE_FILE,))


def is_unchanged(
    data: PreparedData, source: CustomSource, options: ImageOptions, root: Path
) -> bool:
    """Whether a source is, by paths, sizes and times, what data were prepared from.

    Also where an earlier version of this program prepared them, by other rules: a sweep goes on
    with what it began with.
    """
    listed = _listed(source)
    return any(
        known.signature == _signature(source, options, listed, known.version) != ""
        for known in earlier_data(root, source)
        if (known.source, known.fingerprint) == (source.text, data.fingerprint)
    )


def print_prepared(what: str, done: int, total: int | None) -> None:
    """Shows on a terminal, in place, how preparing stands."""
    if not sys.stderr.isatty():
        return
    if total is None:
        text = f"{what}: {done / 1e6:,.0f} MB so far"
    else:
        text = f"{what}: {done:,} of {total:,} images"
    print(f"\r{text}", end="\n" if done == total else "", file=sys.stderr, flush=True)


@dataclass
class _Parts:
    """The files of the three parts while they are written."""

    pixels: list[NpyWriter]
    labels: list[list[int]]
    digests: list[list[bytes]]


def _listed(source: CustomSource) -> PictureList | None:
    if source.path is None or source.kind not in ("folder", "csv"):
        return None
    return list_folder(source.path) if source.kind == "folder" else list_table(source.path)


def _signature(
    source: CustomSource, options: ImageOptions, listed: PictureList | None, version: int = FORMAT
) -> str:
    """Changes when source or options do; empty for a function, which may return anything."""
    if source.kind == "function" or source.path is None:
        return ""
    digest = hashlib.sha256(json.dumps([version, asdict(options)]).encode())
    if listed is None:
        facts = source.path.stat()
        digest.update(f"{facts.st_size} {facts.st_mtime_ns}".encode())
    else:
        base = source.path if source.kind == "folder" else source.path.parent
        for line in listed.signature(base):
            digest.update(f"{line}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _write(
    source: CustomSource,
    content: Content,
    options: ImageOptions,
    folder: Path,
    say: Say,
) -> PreparedData:
    """Streams every part into its files; the data set, for whose folder there is no name yet."""
    division = divide(content.labels, content.given, content.class_names, source.text)
    with ExitStack() as stack:
        writers = [
            stack.enter_context(
                NpyWriter(folder / f"x_{part}.npy", content.input_shape, np.dtype(np.uint8))
            )
            for part in PARTS
        ]
        parts = _Parts(writers, [[] for _ in PARTS], [[] for _ in PARTS])
        _stream(source, content, division, parts, say)
    labels = [np.array(found, np.int64) for found in parts.labels]
    if content.broken:
        _refuse_broken(source, content, options, labels)
    for part, found in zip(PARTS, labels, strict=True):
        np.save(folder / f"y_{part}.npy", found)
    arrays = []
    for part, found in zip(PARTS, labels, strict=True):
        arrays += [np.load(folder / f"x_{part}.npy", mmap_mode="r"), found]
    # These count, too: the same images with swapped names are another data set, and `predict`
    # frames images as the data's were.
    beside = json.dumps([content.class_names, options.resize])
    identity = fingerprint(arrays, beside.encode())
    notes = [*content.notes, *_leaks(parts.digests)]
    if content.broken:
        count = len(content.broken)
        notes.append(f"{count:,} broken image{'s' * (count > 1)} skipped: {some(content.broken)}")
    return PreparedData(
        name=source.name,
        folder=str(folder),
        fingerprint=identity,
        origin=source.text,
        split=division.phrase,
        input_shape=content.input_shape,
        num_classes=len(content.class_names),
        class_names=content.class_names,
        num_images={part: len(found) for part, found in zip(PARTS, labels, strict=True)},
        notes=tuple(notes),
        resize=options.resize,
        is_own=True,
    )


def _named(data: PreparedData, name: str, root: Path) -> PreparedData:
    """The data set in the folder of its name; says so where that is not the source's own."""
    notes = data.notes
    if name != data.name:
        notes = (*notes, f"called {name}, because {data.name} is the name of other data here")
    folder = str(prepared_folder(root, name, data.fingerprint))
    return replace(data, name=name, folder=folder, notes=notes)


def _stream(
    source: CustomSource, content: Content, division: Division, parts: _Parts, say: Say
) -> None:
    for rows, pixels in content.pieces():
        belongs = division.parts[rows]
        for part, writer in enumerate(parts.pixels):
            chosen = belongs == part
            if chosen.any():
                writer.append(pixels[chosen])
                parts.labels[part] += content.labels[rows[chosen]].tolist()
                parts.digests[part] += [
                    hashlib.blake2b(image.tobytes(), digest_size=8).digest()
                    for image in pixels[chosen]
                ]
        say(f"preparing {source.name}", int(rows[-1]) + 1, len(division.parts))


def _leaks(digests: list[list[bytes]]) -> Iterator[str]:
    """A phrase per part whose images an earlier part has, too: its scores would flatter."""
    earlier: set[bytes] = set()
    for part, found in zip(PARTS, digests, strict=True):
        count = sum(digest in earlier for digest in found)
        if count:
            others = " or ".join(PARTS[: PARTS.index(part)])
            yield (
                f"{count:,} of {len(found):,} images of the {part} part are in {others}, too "
                "(identical pixels): scores on them flatter"
            )
        earlier.update(found)


def _refuse_broken(
    source: CustomSource, content: Content, options: ImageOptions, labels: list[np.ndarray]
) -> None:
    """Raises InputError where broken images are not to be skipped, or leave too few."""
    count, named = len(content.broken), some(content.broken)
    if options.broken == "refuse":
        raise InputError(
            f"Every image must be readable. Received: {count:,} broken in {source.text}: "
            f"{named}. Repair or remove them, or leave them out with --broken skip."
        )
    counts = [np.bincount(found, minlength=len(content.class_names)) for found in labels]
    lost = [name for name, n in zip(content.class_names, counts[0], strict=True) if n == 0]
    if lost or any((n > 0).sum() < 2 for n in counts):
        raise InputError(
            "Every class must have readable training images, and every part two classes. Received: "
            f"{count:,} broken in {source.text} ({named}), after which too few are left"
            f"{f' of {some(lost)}' if lost else ''}. Repair them."
        )
