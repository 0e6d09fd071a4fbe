"""What a user's own data can be silently wrong in: scales, names, backgrounds, the same picture."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from image_folders import make_folder, picture
from made_arrays import make_arrays
from PIL import Image

from pipelines.data.custom.prepare import prepare_custom
from pipelines.data.custom.sources import custom_source
from pipelines.data.prepared import PARTS, PreparedData, open_prepared
from pipelines.images.options import ImageOptions
from pipelines.images.reading import read_picture
from search_spaces.errors import InputError

MADE = make_arrays()
X, Y = MADE.x_train, MADE.y_train


def prepared(source: Path | str, **options: str) -> PreparedData:
    return prepare_custom(custom_source(str(source)), Path("data"), ImageOptions(**options))


def of_arrays(path: Path, **arrays: object) -> PreparedData:
    np.savez(path, **arrays)
    return prepared(path)


def all_images(data: PreparedData) -> tuple[np.ndarray, np.ndarray]:
    parts = [data.arrays(part) for part in PARTS]
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


# Scales


def parts_of(train: np.ndarray, test: np.ndarray) -> dict[str, np.ndarray]:
    return {"x_train": train, "y_train": Y, "x_test": test, "y_test": MADE.y_test}


@pytest.mark.parametrize("swapped", [False, True])
def test_parts_of_different_scales_are_refused(tmp_path, swapped):
    train, test = X / 255, MADE.x_test
    words = "x_train is 0 to 1, x_test is 0 to 255 in"
    if swapped:
        train, test = X, MADE.x_test / 255
        words = "x_train is 0 to 255, x_test is 0 to 1 in"
    with pytest.raises(InputError, match=words):
        of_arrays(tmp_path / "a.npz", **parts_of(train, test))


def test_parts_of_one_scale_may_be_of_different_types_and_one_may_be_black(tmp_path):
    plain = of_arrays(tmp_path / "a.npz", **parts_of(X, MADE.x_test))
    mixed = of_arrays(tmp_path / "b.npz", **parts_of(X.astype(np.float32), MADE.x_test))
    assert mixed.fingerprint == plain.fingerprint
    x, y = X.copy(), MADE.x_test * 0
    dark = of_arrays(tmp_path / "c.npz", **parts_of(x / 255, y))
    np.testing.assert_array_equal(np.unique(all_images(dark)[0]), np.unique([0, *np.unique(x)]))


@pytest.mark.parametrize("kind", ["bool", "uint8", "int64", "float32"])
def test_masks_of_every_type_become_black_and_white(tmp_path, kind):
    mask = X > 100
    data = of_arrays(tmp_path / "a.npz", x=mask.astype(kind), y=Y)
    assert set(np.unique(all_images(data)[0])) == {0, 255}
    said = ("the 0 and 1 of x became 0 and 255",) if kind in ("uint8", "int64") else ()
    assert [note for note in data.notes if "became" in note] == list(said)


def test_fractions_that_overshoot_are_refused_and_rounding_is_not(tmp_path):
    x = X / X.max()
    with pytest.raises(InputError, match="0 to 1.04 in x in .*, which is neither. Clip"):
        of_arrays(tmp_path / "a.npz", x=x * 1.04, y=Y)
    slightly = of_arrays(tmp_path / "b.npz", x=x * (1 + 1e-6), y=Y)
    assert all_images(slightly)[0].max() == 255 and len(np.unique(all_images(slightly)[0])) > 50


# Classes


def numbered(root: Path, *names: str) -> Path:
    for place, name in enumerate(names):
        make_folder(root / "made", 3, names=("red",), first=10 * place)
        (root / "made" / "red").rename(root / name)
    (root / "made").rmdir()
    return root


def test_class_folders_keep_their_names_and_their_order(tmp_path):
    data = prepared(numbered(tmp_path / "p", "12", "007", "7", "1", "01"))
    assert data.class_names == ("01", "1", "007", "7", "12")
    assert data.num_images["train"] == 5
    assert "classes that mean one number are different ones: 01 and 1, 007 and 7" in data.notes
    pixels, labels = all_images(data)
    for name in data.class_names:
        for path in (tmp_path / "p" / name).iterdir():
            own = pixels[labels == data.class_names.index(name)]
            assert (own == np.asarray(Image.open(path))).all(axis=(1, 2, 3)).any()


def test_labels_in_text_keep_what_was_written_and_numbers_are_numbers(tmp_path):
    text = of_arrays(tmp_path / "a.npz", x=X, y=np.array(["01", "1", "2"])[Y])
    assert text.class_names == ("01", "1", "2")
    assert of_arrays(tmp_path / "b.npz", x=X, y=Y).class_names == ("0", "1", "2")


def test_a_column_of_one_hot_labels_that_no_picture_has_is_refused(tmp_path):
    for kind in (np.float32, np.int64):
        with pytest.raises(InputError, match="4 columns in .* of which no image has 1. Leave"):
            of_arrays(tmp_path / "a.npz", x=X, y=np.eye(4, dtype=kind)[Y + (Y > 0)])


# What `predict` sees


def shop(root: Path, ground: int) -> Path:
    """Pictures of which nearly all have one ground, and of each class two the opposite."""
    generator = np.random.default_rng(0)
    for label, name in enumerate(("mug", "shoe")):
        (root / name).mkdir(parents=True)
        for k in range(40):
            pixels = np.full((16, 16, 4), 255, np.uint8)
            pixels[..., :3] = 255 - ground if k % 20 == 7 else ground
            pixels[4:12, 4 + 3 * label : 8 + 3 * label, :3] = generator.integers(90, 160, 3)
            image = Image.fromarray(pixels)
            if k % 5 == 1:  # Transparent around the thing.
                pixels[..., 3] = 0
                pixels[4:12, 4 : 8 + label] = [*generator.integers(0, 255, 3), 255]
                image = Image.fromarray(pixels)
            mode = ("RGB", "RGBA", "RGB", "L", "P")[k % 5]
            image.convert(mode).save(root / name / f"{k}.png")
    return root


@pytest.mark.parametrize("ground", [250, 20])
@pytest.mark.parametrize("color", ["rgb", "grey"])
@pytest.mark.parametrize("size", [None, "12x20"])
def test_predict_sees_every_training_picture_as_training_did(tmp_path, ground, color, size):
    options = {"image_size": size} if size else {}
    data = prepared(shop(tmp_path / "shop", ground), color=color, **options)
    rows = {image.tobytes() for image in all_images(data)[0]}
    for path in sorted((tmp_path / "shop").glob("*/*.png")):
        seen = read_picture(path, data.input_shape, data.background(), "auto", data.resize)
        assert not seen.inverted and seen.pixels.tobytes() in rows, path


def test_data_prepared_by_an_earlier_version_open_as_ones_of_the_users_own(tmp_path):
    data = prepared(make_folder(tmp_path / "p", 5))
    meta = Path(data.folder) / "meta.json"
    known = json.loads(meta.read_text())
    del known["is_own"]
    meta.write_text(json.dumps(known))
    assert open_prepared(Path("data"), "p", data.fingerprint) == data
    assert data.background() == "mixed"


# The same picture twice


def test_pictures_that_two_parts_share_are_counted_and_said(tmp_path):
    make_folder(tmp_path / "p" / "train", 8)
    make_folder(tmp_path / "p" / "val", 2, first=50)
    make_folder(tmp_path / "p" / "test", 4, first=7)  # Number 7 of each class trains, too.
    make_folder(tmp_path / "p" / "test", 1, first=51)  # And 51 validates.
    data = prepared(tmp_path / "p")
    assert data.notes == (
        "6 of 15 images of the test part are in train or validation, too (identical pixels): "
        "scores on them flatter",
    )
    arrays = of_arrays(tmp_path / "a.npz", x=np.concatenate([X, X]), y=np.concatenate([Y, Y]))
    assert "of the validation part are in train, too" in arrays.notes[0]
    assert "of the test part are in train or validation, too" in arrays.notes[1]


def table(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(rows))
    return path


@pytest.mark.parametrize("name", ["../{}/all/red/0.png", "./all/red/0.png", "link/red/0.png"])
def test_a_picture_that_is_named_in_two_ways_is_named_twice(tmp_path, name):
    make_folder(tmp_path / "all", 3)
    (tmp_path / "link").symlink_to("all")
    again = name.format(tmp_path.name)
    csv = table(tmp_path / "s.csv", "path,label", "all/red/0.png,a", "", f"{again},b")
    with pytest.raises(InputError, match=r"named once.*0.png in rows 2 and 4 of"):
        prepared(csv)


# Files and folders as they come


def test_linked_folders_are_followed_and_a_link_upwards_ends(tmp_path):
    root = make_folder(tmp_path / "p", 5)
    more = make_folder(tmp_path / "more", 3, names=("red",), first=50)
    (root / "red" / "more").symlink_to(more / "red")
    (root / "red" / "loop").symlink_to(root / "red")
    data = prepared(root)
    assert np.bincount(all_images(data)[1]).tolist() == [5, 5, 8]
    assert "a linked folder that was seen before (1)" in data.notes[0]


def test_a_pipe_with_the_name_of_a_picture_is_a_broken_one(tmp_path):
    root = make_folder(tmp_path / "p", 5)
    os.mkfifo(root / "red" / "pipe.png")
    with pytest.raises(InputError, match=r"1 broken in .*red/pipe.png \(is no regular file\)"):
        prepared(root)
    assert sum(prepared(root, broken="skip").num_images.values()) == 15


def test_a_folder_with_a_colon_in_its_name_is_a_folder(tmp_path):
    make_folder(tmp_path / "photos:v2", 4)
    assert prepared("photos:v2").name == "photos-v2"
    assert custom_source(custom_source("photos:v2").text).kind == "folder"


# Tables as they come


def rows_of(root: Path, pattern: str) -> list[str]:
    return [
        pattern.format(path=path.relative_to(root.parent), label=path.parent.name)
        for path in sorted(root.glob("*/*.png"))
    ]


@pytest.mark.parametrize(
    ("head", "pattern"),
    [
        ("class,photo", "{label},{path}"),
        ("photo,klass", "{path},{label}"),
        ("what,file", "{label},{path}"),
        ("here,there", "{path},{label}"),
        ("n,Class,w,Picture", "1,{label},9,{path}"),
        ("path,label", "{path},{label},,"),
        ("path,label", "./{path},{label}"),
        (",image_id,label", "0,{path},{label}"),
        ("Unnamed: 0,image_id,dx", "0,{path},{label}"),
        ("index,where,klass,split", "0,{path},{label},train"),
        ("id,image_id,label", "7,{path},{label}"),
        ("id,breed", "{path},{label}"),
    ],
)
def test_columns_are_found_in_any_order(tmp_path, head, pattern):
    root = make_folder(tmp_path / "all", 4)
    csv = table(tmp_path / "set.csv", head, *rows_of(root, pattern))
    assert prepared(csv).fingerprint == prepared(root).fingerprint


def test_names_without_suffix_of_images_in_a_folder_beside_the_table_are_found(tmp_path):
    """As in most archives of Kaggle."""
    root = make_folder(tmp_path / "all", 4, suffixes=("png", "jpg"))
    images = tmp_path / "set" / "train_images"
    images.mkdir(parents=True)
    rows = []
    for k, path in enumerate(sorted(root.glob("*/*.*"))):
        path.rename(images / f"ISIC_{k:04}{path.suffix}")
        rows.append(f"{k},ISIC_{k:04},{path.parent.name}")
    (tmp_path / "set" / "test_images").mkdir()
    csv = table(tmp_path / "set" / "train.csv", ",image_id,label", *rows)
    data = prepared(csv)
    assert sum(data.num_images.values()) == 12
    assert data.notes == (f"the images of the CSV file are those in {images}",)
    picture("red", 1).save(images / "ISIC_0000.bmp")  # Which one is meant is not known any more.
    with pytest.raises(InputError, match=r"ISIC_0000 .*does not exist"):
        prepared(csv)


@pytest.mark.parametrize("inside", ["", "train", "train/train"])
@pytest.mark.parametrize("wrapped", ["one", "one/two"])
def test_a_folder_in_a_folder_is_read_as_the_inner_one(tmp_path, wrapped, inside):
    plain = prepared(make_folder(tmp_path / "plain", 6))
    inner = make_folder(tmp_path / "wrapped" / wrapped / inside, 6)
    (tmp_path / "wrapped" / "__MACOSX" / "blue").mkdir(parents=True)
    (tmp_path / "wrapped" / "README.txt").write_text("where it is from")
    data = prepared(tmp_path / "wrapped")
    assert data.class_names == plain.class_names and data.num_images == plain.num_images
    top = tmp_path / "wrapped" / wrapped
    assert inner.is_dir() and data.notes == (f"the class folders are those of {top}",)


def test_paths_of_windows_are_read_and_said(tmp_path):
    root = make_folder(tmp_path / "all", 4)
    rows = [row.replace("/", "\\") for row in rows_of(root, "{path},{label}")]
    data = prepared(table(tmp_path / "set.csv", "path,label", *rows))
    assert data.fingerprint == prepared(root).fingerprint
    assert data.notes == ("backslashes in 12 paths of the CSV file are read as slashes",)


@pytest.mark.parametrize(
    ("head", "pattern", "words"),
    [
        ("path,label", "{path},{label},more", "row 2 with 3 cells for 2 columns. Put a path or"),
        ("path,label,label", "{path},{label},x", "one column of each name. Received: 'label' 2"),
        (
            "path,label",
            "C:\\pictures\\{path},{label}",
            r"can be read as one; the first: .*does not",
        ),
        ("label,split", "{label},train", "must name a path column"),
    ],
)
def test_tables_that_cannot_be_right_are_refused(tmp_path, head, pattern, words):
    root = make_folder(tmp_path / "all", 4)
    with pytest.raises(InputError, match=words):
        prepared(table(tmp_path / "set.csv", head, *rows_of(root, pattern)))


def test_a_first_line_that_names_a_picture_is_no_head(tmp_path):
    for name in ("one", "two", "three"):
        make_folder(tmp_path / "made", 1, names=("red",))
        (tmp_path / "made" / "red" / "0.png").rename(tmp_path / name)
    with pytest.raises(InputError, match="must name a path column"):
        prepared(table(tmp_path / "set.csv", "one,a", "two,b", "three,a"))


# Damaged afterwards


@pytest.mark.parametrize("name", ["x_train.npy", "y_test.npy", "meta.json", "x_validation.npy"])
@pytest.mark.parametrize("damage", ["cut", "gone", "empty", "another"])
def test_damaged_prepared_data_are_prepared_again(tmp_path, name, damage):
    root = make_folder(tmp_path / "p", 6)
    first = prepared(root)
    file = Path(first.folder) / name
    whole = file.read_bytes()
    if damage == "gone":
        file.unlink()
    elif damage == "another" and name != "meta.json":
        np.save(file, np.zeros((2, 12, 12, 3), np.uint8))
    else:
        file.write_bytes(whole[:-20] if damage == "cut" else b"")
    assert open_prepared(Path("data"), "p", first.fingerprint) is None
    assert prepared(root) == first
    assert file.read_bytes() == whole and len(list(Path("data").iterdir())) == 1
