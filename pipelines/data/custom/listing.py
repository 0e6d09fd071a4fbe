"""Which image files a data set consists of: a folder of class folders, or a CSV file."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from pipelines.data.splits import TEST, TRAIN, VALIDATION, some
from pipelines.runtime.filesystem import check_path_is_text
from search_spaces.errors import InputError
from search_spaces.files import UnusableFileError, read_text

SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".webp",
    ".avif", ".ppm", ".pgm", ".pbm", ".pnm", ".ico", ".jp2", ".j2k",
})  # fmt: skip
PART_NAMES = {
    "train": TRAIN, "training": TRAIN, "val": VALIDATION, "valid": VALIDATION,
    "validation": VALIDATION, "test": TEST, "testing": TEST,
}  # fmt: skip
PATH_COLUMNS = (
    "path", "file", "filename", "filepath", "file_name", "image", "image_path", "image_name",
    "picture", "photo", "img", "image_id", "imageid", "img_id", "id_code", "id",
)  # fmt: skip
LABEL_COLUMNS = ("label", "class", "class_name", "category", "target", "labels", "y")
INDEX_COLUMNS = ("", "unnamed: 0", "index")
"""What a data frame's numbers of rows are called in a CSV file."""
MOST_TABLE_BYTES = 2**30
"""Of a CSV file: ten million images."""
SPLIT_COLUMNS = ("split", "part", "subset", "set")


@dataclass(frozen=True)
class PictureList:
    """Files with labels, in a fixed order.

    Attributes:
        given: (n,) int8, the part that each belongs to; TRAIN where nothing is said.
        notes: what was left out, a phrase each.
    """

    paths: tuple[Path, ...]
    labels: tuple[str, ...]
    given: np.ndarray
    notes: tuple[str, ...] = ()

    def signature(self, base: Path) -> Iterator[str]:
        """A line per file that changes when the file does: its place, size and time."""
        for path, label, part in zip(self.paths, self.labels, self.given, strict=True):
            try:
                facts = path.stat()
                state = f"{facts.st_size} {facts.st_mtime_ns}"
            except OSError:
                state = "missing"
            yield f"{os.path.relpath(path, base)}\0{label}\0{part}\0{state}"


def list_folder(root: Path) -> PictureList:
    """The images below a folder: `CLASS/**`, or `train/CLASS/**` with `val` and `test` beside.

    A folder that holds nothing but one folder of such a kind is read as that one.

    Raises:
        InputError: No images, no class folders, a class without images, or one class.
    """
    top = _unwrapped(root)
    notes = () if top == root else (f"the class folders are those of {top}",)
    parts = {part: _unwrapped(place) for part, place in _part_folders(top, _folders(top)).items()}
    paths: list[Path] = []
    labels: list[str] = []
    given: list[int] = []
    others: Counter[str] = Counter()
    for part, part_root in parts.items():
        for folder in _folders(part_root):
            check_path_is_text(Path(folder.name), "--dataset")
            found, left_out = _pictures(folder)
            others += left_out
            if not found and part == TRAIN:
                raise _empty_class(folder, left_out)
            paths += found
            labels += [folder.name] * len(found)
            given += [part] * len(found)
        if loose := _loose_pictures(part_root):
            raise InputError(
                "Every image must be in the folder of its class. Received: "
                f"{len(loose):,} without one ({some([p.name for p in loose])}) in {part_root}. "
                "Move them into a folder named for their class."
            )
    if list(parts) == [TRAIN]:
        _check_are_classes(_folders(parts[TRAIN]))
    if not paths:
        raise InputError(
            "A folder of images must hold a folder per class with images in it. Received: "
            f"{root}, which has none ({', '.join(sorted(SUFFIXES)[:6])} ... are read). Sort the "
            "images into class folders."
        )
    if others:
        kinds = some([f"{suffix or 'no suffix'} ({n})" for suffix, n in others.most_common()])
        num = sum(others.values())
        notes = (*notes, f"{num:,} file{'s' * (num > 1)} of other kinds left out: {kinds}")
    return PictureList(tuple(paths), tuple(labels), np.array(given, np.int8), notes)


def _check_are_classes(folders: Sequence[Path]) -> None:
    """Raises InputError where folders that seem to be classes look like parts of a data set.

    As in `seg_train` beside `seg_test`, each with the folders of the same classes.
    """
    words = [re.split(r"[^a-z]+", folder.name.lower()) for folder in folders]
    if not all(PART_NAMES.keys() & names for names in words):
        return
    inside = [{inner.name for inner in _folders(_unwrapped(folder))} for folder in folders]
    if len(folders) > 1 and inside[0] and all(names == inside[0] for names in inside):
        raise InputError(
            "Folders that hold the same class folders are parts of a data set, not classes. "
            f"Received: {some([folder.name for folder in folders])} in {folders[0].parent}, each "
            f"with {some(sorted(inside[0]))}. Name them train, and val or test."
        )


def _unwrapped(root: Path) -> Path:
    """The folder itself, or the only one in it, and so on: an archive's own folder, mostly.

    A folder without folders in it is a class.
    """
    folders = _folders(root)
    inner = folders[0] if len(folders) == 1 else None
    if inner is None or not _folders(inner) or _loose_pictures(root):
        return root
    if inner.name.lower() in PART_NAMES and inner.name != root.name:
        return root
    return _unwrapped(inner)


def _loose_pictures(folder: Path) -> list[Path]:
    return [path for path in _files(folder) if path.suffix.lower() in SUFFIXES]


def list_table(path: Path) -> PictureList:
    """The images that a CSV file names, by paths relative to its own folder, or to the one folder
    in that which has the first image; a name may lack its suffix.

    Its first line names the columns: one of `PATH_COLUMNS`, one of `LABEL_COLUMNS`, and perhaps
    one of `SPLIT_COLUMNS` and of `INDEX_COLUMNS`; of two more where one has another name it is the
    other one, and of two with other names the first is the path.

    Raises:
        InputError: Columns, a label or a path are missing, or an image is named twice.
    """
    rows = _rows(path)
    (_, head), *body = rows or [(1, [])]
    path_column, label_column, split_column = _columns(path, head)
    if not body:
        raise InputError(
            f"A CSV file must have a line per image below its first. Received: {path}, which "
            "has none."
        )
    paths, labels, given = [], [], []
    lines: dict[str, int] = {}
    turned, bases = 0, set[Path]()
    by_stem = lru_cache(_by_stem)
    base = _base_of(path.parent, [row[path_column] for _, row in body if len(row) > path_column])
    for line, row in body:
        if any(cell.strip() for cell in row[len(head) :]):
            raise InputError(
                f"A row must have no more cells than the first line has columns. Received: {path}, "
                f"row {line} with {len(row)} cells for {len(head)} columns. Put a path or label "
                "with a comma in it between quotes."
            )
        cells = [*row, *[""] * (len(head) - len(row))]
        name, label = cells[path_column].strip(), cells[label_column].strip()
        if not name or not label:
            what = "label" if name else "path"
            raise InputError(
                f"Every line must have a path and a label. Received: {path}, row {line} without a "
                f"{what}. Fill it in, or remove the row."
            )
        picture, is_turned = _picture_at(base, name, by_stem)
        if base != path.parent and not _is_there(picture):
            others = (_picture_at(place, name, by_stem) for place in _folders(path.parent))
            picture, is_turned = next(filter(lambda o: _is_there(o[0]), others), (picture, False))
            bases |= {base, picture.parent}
        turned += is_turned
        place = str(Path(_resolved(picture.parent), picture.name))
        if place in lines:
            raise InputError(
                f"An image must be named once, or it would be in two parts. Received: {name} in "
                f"rows {lines[place]} and {line} of {path}. Remove one."
            )
        lines[place] = line
        paths.append(picture)
        labels.append(label)
        given.append(_part_of(cells[split_column], path, line) if split_column is not None else 0)
    notes = []
    if turned:
        notes.append(f"backslashes in {turned:,} paths of the CSV file are read as slashes")
    if base != path.parent:
        places = some(sorted(str(place) for place in bases or {base}))
        notes.append(f"the images of the CSV file are those in {places}")
    return PictureList(tuple(paths), tuple(labels), np.array(given, np.int8), tuple(notes))


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """The lines of a CSV file that are not empty, each with its number in the file."""
    try:
        text = read_text(path, MOST_TABLE_BYTES).removeprefix("\ufeff")
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text[:4096]))
        return [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except (OSError, UnusableFileError, csv.Error) as error:
        raise InputError(
            f"A CSV file must be text in UTF-8 that can be read. Received: {path} ({error}). "
            "Save it again."
        ) from error


def _is_there(path: Path) -> bool:
    """Whether it is a file, or a link to one; a name that no file system takes is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


ByStem = Callable[[Path], dict[str, Path]]


def _picture_at(folder: Path, name: str, by_stem: ByStem) -> tuple[Path, bool]:
    """The image of that name, perhaps with a suffix that it lacks, and whether the backslashes of
    Windows were read as slashes.
    """
    picture, turned = folder / name, False
    if "\\" in name and not _is_there(picture):
        picture, turned = folder / name.replace("\\", "/"), True
    if picture.suffix.lower() not in SUFFIXES and not _is_there(picture):
        picture = by_stem(picture.parent).get(picture.name, picture)
    return picture, turned


def _by_stem(folder: Path) -> dict[str, Path]:
    """The images in a folder by their names without suffix, where only one has that name."""
    found = _loose_pictures(folder) if folder.is_dir() else []
    alone = Counter(path.stem for path in found)
    return {path.stem: path for path in found if alone[path.stem] == 1}


def _base_of(folder: Path, names: Sequence[str]) -> Path:
    """What a table's paths are relative to: its own folder, or the one in it with the first image.

    As in an archive with `train.csv` beside the folder `train_images`.
    """

    def has_first(place: Path) -> bool:
        return _is_there(_picture_at(place, names[0].strip(), _by_stem)[0])

    if not names or not names[0].strip() or has_first(folder):
        return folder
    inside = [place for place in _folders(folder) if has_first(place)]
    return inside[0] if len(inside) == 1 else folder


@lru_cache(maxsize=1024)
def _resolved(folder: Path) -> str:
    """Without links and `..`: one image may be named in many ways."""
    return os.path.realpath(folder)


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(
            entry for entry in root.iterdir()
            if entry.is_dir() and not entry.name.startswith((".", "__"))
        )  # fmt: skip
    except OSError as error:
        raise InputError(
            f"A folder of images must be readable. Received: {root} ({error.strerror})."
        ) from error


def _files(root: Path) -> list[Path]:
    return sorted(e for e in root.iterdir() if e.is_file() and not e.name.startswith("."))


def _part_folders(root: Path, folders: list[Path]) -> dict[int, Path]:
    """Part -> its folder; the root itself where there is no `train` with class folders in it."""
    named = {folder.name.lower(): folder for folder in folders}
    train = next((named[n] for n, part in PART_NAMES.items() if part == TRAIN and n in named), None)
    if train is None or not _folders(train):
        return {TRAIN: root}
    parts: dict[int, Path] = {}
    for name, folder in named.items():
        if name not in PART_NAMES:
            raise InputError(
                "Beside train there may be val and test. Received: "
                f"{folder}, which is neither. Move it away, or make class folders of all."
            )
        if PART_NAMES[name] in parts:
            raise InputError(
                "Each part must have one folder. Received: "
                f"{parts[PART_NAMES[name]].name} and {folder.name} in {root}. Merge them."
            )
        parts[PART_NAMES[name]] = folder
    return dict(sorted(parts.items()))


def _pictures(folder: Path) -> tuple[list[Path], Counter[str]]:
    """Images below a class folder in a fixed order, and the suffixes of what else is there."""
    found, others = [], Counter[str]()
    seen: set[str] = set()
    # Links to folders count as those of classes do, but a link to a folder above has no end.
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            others["a linked folder that was seen before"] += 1
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            suffix = Path(name).suffix.lower()
            if name.startswith("."):
                continue
            if suffix in SUFFIXES:
                found.append(Path(place) / name)
            else:
                others[suffix] += 1
    return found, others


def _empty_class(folder: Path, others: Counter[str]) -> InputError:
    instead = ""
    if others:
        instead = f", but files of kinds that are not read: {some(sorted(others))}"
    return InputError(
        f"Every class folder must hold images. Received: {folder}, which has none{instead}. Put "
        "images into it (PNG, JPEG ...), or remove it."
    )


def _delimiter(sample: str) -> str:
    first = sample.splitlines()[0] if sample.strip() else ""
    return max(",;\t", key=first.count)


def _columns(path: Path, head: list[str]) -> tuple[int, int, int | None]:
    names = [name.strip().lower() for name in head]

    def place(known: tuple[str, ...]) -> int | None:
        return next((names.index(name) for name in known if name in names), None)

    file, label, split = (place(k) for k in (PATH_COLUMNS, LABEL_COLUMNS, SPLIT_COLUMNS))
    rest = [k for k, name in enumerate(names) if name not in INDEX_COLUMNS and k != split]
    if len(rest) == 2 and (file is None or label is None):
        first, second = rest
        if file is None:
            file = second if label == first else first
        label = second if file == first else first
        if any(Path(name).suffix in SUFFIXES for name in names) or any(
            _is_there(path.parent / name.strip()) for name in head
        ):
            file = None  # The first line is data, not names.
    if file is None or label is None:
        missing = "a path column and a label column (path,label)"
        if file is not None:
            missing = f"a label column (label) beside '{head[file].strip()}', the column of paths"
        elif label is not None:
            missing = f"a path column (path) beside '{head[label].strip()}', the column of labels"
        raise InputError(
            f"A CSV file's first line must name {missing}. "
            f"Received: {', '.join(head) or 'nothing'} in {path}. Add that line, or rename the "
            f"columns: {', '.join(PATH_COLUMNS[:3])} ... and {', '.join(LABEL_COLUMNS[:3])} ..."
        )
    twice = [names[k] for k in (file, label, split) if k is not None and names.count(names[k]) > 1]
    if twice:
        raise InputError(
            f"A CSV file must have one column of each name. Received: '{twice[0]}' "
            f"{names.count(twice[0])} times in {path}. Rename the others."
        )
    return file, label, split


def _part_of(text: str, path: Path, line: int) -> int:
    part = PART_NAMES.get(text.strip().lower())
    if part is None:
        raise InputError(
            f"A split column must say train, val or test. Received: '{text}' in row {line} of "
            f"{path}. Correct it, or remove the column."
        )
    return part
