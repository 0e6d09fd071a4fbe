"""A user's own data: every form becomes the same arrays, and what is wrong is one clear line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from image_folders import COLOURS, SUFFIXES, make_folder, picture
from made_arrays import make_arrays
from PIL import Image

from pipelines.data.custom.prepare import prepare_custom
from pipelines.data.custom.sources import absolute_dataset, check_dataset, custom_source
from pipelines.data.prepared import PARTS, PreparedData, open_prepared
from pipelines.images.options import ImageOptions
from search_spaces.errors import InputError

ROOT = Path(__file__).parents[3]


def prepared(source: Path | str, root: Path | None = None, **options: str) -> PreparedData:
    found = custom_source(str(source))
    return prepare_custom(found, root or Path("data"), ImageOptions(**options))


def all_images(data: PreparedData) -> tuple[np.ndarray, np.ndarray]:
    parts = [data.arrays(part) for part in PARTS]
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


# Folders


def test_a_folder_of_every_kind_of_picture_becomes_arrays(tmp_path):
    make_folder(tmp_path / "my photos", 12, suffixes=SUFFIXES)
    data = prepared(tmp_path / "my photos")
    assert data.name == "my-photos" and data.class_names == ("blue", "green", "red")
    assert data.input_shape == (12, 12, 3) and data.notes == ()
    assert data.num_images == {"train": 24, "validation": 6, "test": 6}
    x, y = all_images(data)
    assert x.dtype == np.uint8
    for label, colour in enumerate(COLOURS.values()):
        np.testing.assert_allclose(x[y == label].mean(axis=(0, 1, 2)), colour, atol=12)
    for part in PARTS:
        assert set(np.bincount(data.arrays(part)[1])) == {data.num_images[part] // 3}


def test_grey_pictures_give_one_channel_and_can_be_made_colour(tmp_path):
    make_folder(tmp_path / "p", 6, suffixes=("png", "gif"), mode="L")
    assert prepared(tmp_path / "p").input_shape == (12, 12, 1)
    assert prepared(tmp_path / "p", color="rgb").input_shape == (12, 12, 3)
    picture("red", 99).save(tmp_path / "p" / "red" / "99.png")
    assert prepared(tmp_path / "p").input_shape == (12, 12, 3)
    assert prepared(tmp_path / "p", color="grey").input_shape == (12, 12, 1)


@pytest.mark.parametrize("resize", ["fit", "crop", "stretch"])
def test_pictures_come_into_their_frame_as_told(tmp_path, resize):
    for name, shade in (("a", 40), ("b", 200)):
        (tmp_path / "p" / name).mkdir(parents=True)
        for k in range(3):
            wide = np.zeros((10, 40, 3), np.uint8)
            wide[:, 10:30] = shade  # The middle half of a picture four times as wide as high.
            Image.fromarray(wide).save(tmp_path / "p" / name / f"{k}.png")
    x, y = all_images(prepared(tmp_path / "p", image_size="20x20", resize=resize))
    image = x[y == 1][0][..., 0]
    if resize == "fit":  # All of it is there, small, with bars above and below.
        assert (image[:6] < 10).all() and image[10, 10] == 200 and image[10, 1] < 10
    elif resize == "crop":  # Only the middle is.
        assert (image > 190).all()
    else:
        assert (image[:, 8:12] > 190).all() and (image[:, :2] < 10).all() and image[0, 10] > 190


def test_a_size_is_chosen_and_said_where_pictures_differ(tmp_path):
    make_folder(tmp_path / "p", 4, size=(30, 20))
    make_folder(tmp_path / "p", 2, size=(90, 120), first=10)
    data = prepared(tmp_path / "p")
    assert data.input_shape == (20, 20, 3)
    assert "2 sizes (20x30 to 120x90) are fitted into 20x20; --image-size" in data.notes[0]
    assert prepared(tmp_path / "p", image_size="16x24").input_shape == (16, 24, 3)
    make_folder(tmp_path / "large", 3, size=(400, 300))
    assert prepared(tmp_path / "large").input_shape == (64, 64, 3), "no frame of a camera's size"


def test_given_parts_stay_and_missing_ones_are_made(tmp_path):
    root = tmp_path / "p"
    make_folder(root / "train", 10)
    make_folder(root / "val", 2, first=50)
    data = prepared(root)
    assert data.num_images == {"train": 24, "validation": 6, "test": 6}
    make_folder(root / "test", 3, first=70)
    data = prepared(root)
    assert data.num_images == {"train": 30, "validation": 6, "test": 9}
    assert data.split == "as given"


def test_a_class_that_is_called_train_is_a_class(tmp_path):
    for name in ("bus", "train"):
        (tmp_path / "p" / name).mkdir(parents=True)
        for k in range(3):
            picture("red", k).save(tmp_path / "p" / name / f"{k}.png")
    assert prepared(tmp_path / "p").class_names == ("bus", "train")


def test_the_smallest_classes_are_in_every_part_and_the_split_repeats(tmp_path):
    make_folder(tmp_path / "p", 20, names=("blue", "green"))
    make_folder(tmp_path / "p", 3, names=("red",))
    data = prepared(tmp_path / "p")
    assert [list(np.bincount(data.arrays(part)[1])) for part in PARTS] == [
        [13, 13, 1], [3, 3, 1], [4, 4, 1]
    ]  # fmt: skip
    assert prepared(tmp_path / "p", tmp_path / "elsewhere").fingerprint == data.fingerprint


def test_numbered_classes_are_in_the_order_of_their_numbers(tmp_path):
    for name in ("10", "9", "2"):
        (tmp_path / "p" / name).mkdir(parents=True)
        for k in range(3):
            picture("red", k).save(tmp_path / "p" / name / f"{k}.png")
    assert prepared(tmp_path / "p").class_names == ("2", "9", "10")


def break_some(root: Path) -> None:
    (root / "red" / "0.png").write_bytes(b"")
    whole = (root / "green" / "1.png").read_bytes()
    (root / "green" / "1.png").write_bytes(whole[: len(whole) // 2])


def test_broken_pictures_are_named_and_refused_or_skipped(tmp_path):
    root = make_folder(tmp_path / "p", 10)
    break_some(root)
    (root / "red" / "notes.txt").write_text("x")
    with pytest.raises(
        InputError, match=r"2 broken in .*: green/1.png \(image file is trunc.*, red/0.png \(is em"
    ):
        prepared(root)
    assert not Path("data").exists(), "nothing half prepared is left"
    data = prepared(root, broken="skip")
    assert sum(data.num_images.values()) == 28
    assert "1 file of other kinds left out: .txt (1)" in data.notes[0]
    assert data.notes[1].startswith("2 broken images skipped: green/1.png (image file is t")


def test_all_pictures_of_a_class_broken_is_refused(tmp_path):
    root = make_folder(tmp_path / "p", 3)
    for path in (root / "red").iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"red \(0\)"):
        prepared(root, broken="skip")


def test_a_turned_photograph_is_upright(tmp_path):
    root = make_folder(tmp_path / "p", 4, size=(20, 10))
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in COLOURS:
        picture(name, 7, (10, 20)).save(root / name / "turned.jpg", exif=exif)
    assert prepared(root).input_shape == (10, 20, 3), "its upright size is that of the others"


# Arrays


def npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def test_the_forms_of_an_npz_give_the_same_pictures(tmp_path):
    made = make_arrays()
    x, y = made.x_train, made.y_train
    forms = {
        "plain": {"x": x, "y": y},
        "flat": {"x": x[..., 0], "y": y[:, None]},
        "fractions": {"x": x.astype(np.float32) / 255, "y": y.astype(np.float64)},
        "floats": {"x": x.astype(np.float64), "y": np.eye(3)[y]},
        "wide": {"x": x.astype(np.int64), "y": y.astype(np.uint8)},
    }
    found = {name: prepared(npz(tmp_path / f"{name}.npz", **a)) for name, a in forms.items()}
    assert len({data.fingerprint for data in found.values()}) == 1
    np.savez_compressed(tmp_path / "small.npz", **forms["plain"])
    assert prepared(tmp_path / "small.npz").fingerprint == found["plain"].fingerprint
    pixels, labels = all_images(found["plain"])
    assert sorted(map(bytes, pixels)) == sorted(map(bytes, x)) and len(labels) == 120


def test_given_parts_of_an_npz_stay(tmp_path):
    made = make_arrays()
    arrays = {"x_train": made.x_train, "y_train": made.y_train,
              "x_test": made.x_test, "y_test": made.y_test}  # fmt: skip
    data = prepared(npz(tmp_path / "a.npz", **arrays))
    assert data.num_images == {"train": 96, "validation": 24, "test": 30}
    np.testing.assert_array_equal(data.arrays("test")[0], made.x_test)
    arrays |= {"x_val": made.x_test[:9], "y_val": made.y_test[:9]}
    data = prepared(npz(tmp_path / "b.npz", **arrays))
    assert data.num_images == {"train": 120, "validation": 9, "test": 30}


def test_names_of_classes_come_from_labels_or_beside_them(tmp_path):
    made = make_arrays()
    words = np.array(["left", "middle", "right"])
    by_label = prepared(npz(tmp_path / "a.npz", x=made.x_train, y=words[made.y_train]))
    beside = prepared(npz(tmp_path / "b.npz", x=made.x_train, y=made.y_train, class_names=words))
    assert by_label.class_names == beside.class_names == ("left", "middle", "right")
    assert by_label.fingerprint == beside.fingerprint
    shifted = prepared(npz(tmp_path / "c.npz", x=made.x_train, y=made.y_train * 10 - 5))
    assert shifted.class_names == ("-5", "5", "15")
    assert shifted.fingerprint != by_label.fingerprint, "names count"


def test_arrays_are_resized_and_coloured_as_told(tmp_path):
    made = make_arrays(side=12)
    path = npz(tmp_path / "a.npz", x=made.x_train, y=made.y_train)
    assert prepared(path, image_size="6", color="rgb").input_shape == (6, 6, 3)


FUNCTIONS = """
import numpy as np

def arrays():
    x = np.arange(60 * 16, dtype=np.int64).reshape(60, 4, 4) % 256
    return x, np.array(["ant", "bee", "cow"])[np.arange(60) % 3]

def pairs():
    x, y = arrays()
    return (x[:40], y[:40]), (x[40:], y[40:])

def as_dict():
    x, y = arrays()
    return {"train": (x[:40], y[:40]), "x_test": x[40:], "y_test": y[40:]}

def number():
    return 3

def ragged():
    return np.array([np.zeros((2, 2)), np.zeros((3, 3))], dtype=object), [0, 1]

def broken():
    return {}["no such key"]

class Pairs:  # As a tf.data.Dataset gives its elements.

    def __init__(self, batch):
        self.batch = batch

    def as_numpy_iterator(self):
        x, y = arrays()
        y = np.array([name.encode() for name in y], dtype=object)
        for k in range(0, 60, self.batch or 1):
            yield (x[k : k + self.batch], y[k : k + self.batch]) if self.batch else (x[k], y[k])

def dataset():
    return Pairs(None)

def batches():
    return {"train": Pairs(7)}

def dies():
    import os
    os._exit(7)
"""


def test_a_function_gives_arrays(tmp_path):
    (tmp_path / "mine.py").write_text(FUNCTIONS)
    one = prepared("mine.py:arrays")
    assert (one.name, one.class_names) == ("mine-arrays", ("ant", "bee", "cow"))
    assert one.num_images == {"train": 39, "validation": 9, "test": 12}
    assert prepared("mine.py:pairs").num_images["test"] == 20
    assert prepared("mine.py:as_dict").fingerprint == prepared("mine.py:pairs").fingerprint
    assert prepared("mine.py:dataset").fingerprint == one.fingerprint
    assert prepared("mine.py:batches").fingerprint == one.fingerprint
    assert prepared("mine:arrays").fingerprint == one.fingerprint, "a module in this folder"


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("number", "returned int, which is none of these"),
        ("ragged", "'x' as an array of Python objects"),
        ("broken", r"raised KeyError: 'no such key' \(mine.py, line 23\)"),
        ("dies", "ended with status 7"),
        ("missing", "has no function 'missing'; it has: arrays, pairs"),
    ],
)
def test_a_function_that_does_otherwise_is_told(tmp_path, function, words):
    (tmp_path / "mine.py").write_text(FUNCTIONS)
    with pytest.raises(InputError, match=words):
        prepared(f"mine.py:{function}")


@pytest.mark.slow
def test_a_tensorflow_dataset_is_read_in_a_process_of_its_own(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "def load():\n"
        "    import tensorflow as tf\n"
        "    x = np.arange(60 * 27, dtype=np.int64).reshape(60, 3, 3, 3) % 256\n"
        "    y = np.array(['ant', 'bee', 'caterpillar'])[np.arange(60) % 3]\n"
        "    return tf.data.Dataset.from_tensor_slices((x, y)).batch(7)\n"
    )
    code = (
        "import sys; from pathlib import Path; from pipelines.data.custom.prepare import prepare_custom; "
        "from pipelines.data.custom.sources import custom_source; "
        "data = prepare_custom(custom_source('mine.py:load'), Path('data')); "
        "print(data.num_images['train'], data.input_shape, data.class_names, "
        "'tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "39 (3, 3, 3) ('ant', 'bee', 'caterpillar') False\n", done.stderr


# CSV


def test_a_table_names_pictures_labels_and_parts(tmp_path):
    make_folder(tmp_path / "all", 8)
    rows = [f"all/{name}/{k}.png,{name}" for name in COLOURS for k in range(8)]
    (tmp_path / "set.csv").write_text("\n".join(["path,label", *rows]))
    data = prepared(tmp_path / "set.csv")
    assert data.fingerprint == prepared(tmp_path / "all").fingerprint
    parts = ["train"] * 5 + ["val"] + ["test"] * 2
    rows = [f"{name};x;{p};all/{name}/{k}.png" for name in COLOURS for k, p in enumerate(parts)]
    (tmp_path / "set.csv").write_text("\ufeff" + "\n".join(["Class;other;split;file", *rows]))
    data = prepared(tmp_path / "set.csv")
    assert data.num_images == {"train": 15, "validation": 3, "test": 6}


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["a,b,c", "1,2,3"], "must name a path column and a label column"),
        (["path,label"], "a line per image"),
        (["path,label", "all/red/0.png,"], "row 2 without a label"),
        (["path,label", "all/red/0.png,a", "all/red/0.png,b"], "named once.*rows 2 and 3"),
        (["path,label,split", "all/red/0.png,a,dev"], "train, val or test. Received: 'dev'"),
        (["path,label", *(f"none/{k}.png,{k % 2}" for k in range(8))], "none of 8 files"),
        (["all/red/0.png,a", "all/red/1.png,b"], "must name a path column"),
        ([""], "must name a path column"),
    ],
)
def test_a_table_with_something_wrong_is_refused(tmp_path, lines, words):
    make_folder(tmp_path / "all", 3)
    (tmp_path / "set.csv").write_text("\n".join(lines))
    with pytest.raises(InputError, match=words):
        prepared(tmp_path / "set.csv")


def test_pictures_that_a_table_names_and_that_are_gone_are_broken_ones(tmp_path):
    make_folder(tmp_path / "all", 8)
    rows = [f"all/{name}/{k}.png,{name}" for name in COLOURS for k in range(9)]
    (tmp_path / "set.csv").write_text("\n".join(["path,label", *rows]))
    with pytest.raises(InputError, match=r"3 broken in .*blue/8.png \(does not exist\)"):
        prepared(tmp_path / "set.csv")
    assert sum(prepared(tmp_path / "set.csv", broken="skip").num_images.values()) == 24


# What is refused


X, Y = make_arrays().x_train, make_arrays().y_train
NAN = X.astype(np.float32)
NAN[3, 1, 1] = np.nan


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": X, "y": Y * 0}, r"2 to 1,000 classes. Received: 1 "),
        ({"x": X, "y": np.arange(120) + np.arange(120) % 1}, r"at least 3 training images.*0 \(1\)"),
        ({"x": X[:-1], "y": Y}, "one label per image. Received: 119 images .* and 120 labels"),
        ({"x": NAN, "y": Y}, "finite. Received: NaN or infinity in x in"),
        ({"x": X.astype("U3"), "y": Y}, "Pixels must be numbers"),
        ({"x": X.astype(np.int64) * 300, "y": Y}, "0 to 255.* Received: 0 to"),
        ({"x": X.astype(np.float32) - 99, "y": Y}, "0 to 255"),
        ({"x": X[:, :, :, [0, 0]], "y": Y}, "with 1 or 3 channels"),
        ({"x": X[:, 0, :, 0], "y": Y}, r"must be of shape \(n, height, width\)"),
        ({"y": Y}, "Labels without images cannot be used. Received: y without x"),
        ({"x": X}, "Images without labels"),
        ({"images": X, "labels": Y}, "x_train and y_train.* Received: images, labels"),
        ({"x": X, "y": Y + 0.5}, "fractions such as"),
        ({"x": X, "y": np.where(Y == 0, np.nan, Y)}, "Received: NaN or infinity"),
        ({"x": X, "y": np.ones((120, 3))}, "not one-hot"),
        ({"x": X, "y": np.array(["Cat", "cat", "dog"])[Y]}, "more than capitals and blanks"),
        ({"x": X, "y": Y, "class_names": ["a", "a", "b"]}, "'a' and 'a'"),
        ({"x": X, "y": Y, "class_names": ["a", "b"]}, "a name for every label"),
        ({"x": X, "y": Y, "class_names": ["a", "b", "c", "d"]}, "d in .*which no image has"),
        ({"x": np.asfortranarray(X), "y": Y}, "row by row"),
        ({"x_train": X[Y < 2], "y_train": Y[Y < 2], "x_test": X, "y_test": Y}, "2 in the test part"),
        ({"x_train": X, "y_train": Y, "x_val": X[Y == 1], "y_val": Y[Y == 1]}, "at least two classes"),
        ({"x": np.array([None, 1] * 60), "y": Y}, r"Python objects \(pickled\)"),
    ],
)  # fmt: skip
def test_arrays_that_cannot_be_used_are_refused(tmp_path, arrays, words):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=words) as caught:
        prepared(tmp_path / "a.npz")
    assert "\n" not in str(caught.value)
    assert not list(Path("data").glob("*"))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "text"])
def test_a_damaged_npz_is_refused(tmp_path, damage):
    whole = npz(tmp_path / "a.npz", x=X, y=Y).read_bytes()
    (tmp_path / "a.npz").write_bytes({
        "truncated": whole[: len(whole) // 2],
        "flipped": whole[:3000] + bytes([whole[3000] ^ 255]) + whole[3001:],
        "empty": b"",
        "text": b"<html>",
    }[damage])  # fmt: skip
    with pytest.raises(InputError, match="corrupt, truncated"):
        prepared(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p.mkdir(), "must hold a folder per class"),
        (lambda p: make_folder(p, 5, names=("red",)), "2 to 1,000 classes. Received: 1 .*red"),
        (lambda p: (make_folder(p, 5), (p / "empty").mkdir()), "must hold images. Received: .*empty"),
        (lambda p: (make_folder(p, 5), picture("red", 1).save(p / "1.png")), "in the folder of its class"),
        (lambda p: make_folder(p, 2), r"at least 3 training images.*blue \(2\), green \(2\)"),
        (lambda p: (make_folder(p / "train", 5), make_folder(p / "extra", 5)), "nor|neither"),
        (lambda p: (make_folder(p / "train", 5), make_folder(p / "val", 5), make_folder(p / "valid", 5)), "one folder"),
        (lambda p: (make_folder(p, 5), make_folder(p, 5, names=("red",)), (p / "red").rename(p / "Blue ")), "capitals and blanks"),
        (lambda p: (make_folder(p, 5), (p / "heic").mkdir(), (p / "heic" / "a.heic").write_text("x")), "kinds that are not read: .heic"),
    ],
)  # fmt: skip
def test_folders_that_cannot_be_used_are_refused(tmp_path, make, words):
    make(tmp_path / "p")
    with pytest.raises(InputError, match=words) as caught:
        prepared(tmp_path / "p")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ("mnits", "Did you mean 'mnist'?.* Or name a folder"),
        ("nothing.npz", "which does not exist"),
        ("no/such/folder", "which does not exist"),
        ("a.parquet", "a file of another kind. Convert it"),
        ("a.py", "after a colon: file.py:load"),
        ("gone.py:load", "which does not exist"),
    ],
)
def test_a_source_that_is_none_is_told_before_anything(tmp_path, dataset, words):
    for name in ("a.parquet", "a.py"):
        (tmp_path / name).write_text("x")
    with pytest.raises(InputError, match=words):
        check_dataset(dataset, ImageOptions())


def test_image_options_are_for_own_data_only():
    with pytest.raises(InputError, match="--color grey, --broken skip|--color grey with mnist"):
        check_dataset("mnist", ImageOptions(color="grey"))
    with pytest.raises(InputError, match="height x width in pixels"):
        check_dataset("x.npz", ImageOptions(image_size="9x9x9"))


# Names, identity, finding again


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("/a/My photos (2024)/", "My-photos-2024"), ("/a/mnist", "own-mnist"),
        ("x/set.v2.npz", "set.v2"), ("table.csv", "table"), ("a/mine.py:load", "mine-load"),
        ("package.module:load", "module-load"), ("/a/.hidden", "hidden"),
        ("/a/" + "long" * 40, ("long" * 15)),
    ],
)  # fmt: skip
def test_a_name_is_safe_for_folders_experiments_and_models(source, name):
    assert custom_source(source).name == name
    assert custom_source("/a/фото").name.startswith("data-")


def test_a_path_means_the_same_from_every_folder(tmp_path):
    assert absolute_dataset("photos/cats") == str(tmp_path / "photos" / "cats")
    assert absolute_dataset("mine.py:load") == f"{tmp_path / 'mine.py'}:load"
    for same in ("mnist", None, "package.module:load", "nonsense"):
        assert absolute_dataset(same) == same


def test_an_unchanged_source_is_not_read_again_and_a_changed_one_is(tmp_path, monkeypatch):
    root = make_folder(tmp_path / "p", 6)
    first = prepared(root)
    monkeypatch.setattr(
        "pipelines.data.custom.content.read_pixels", lambda *_: pytest.fail("read again")
    )
    assert prepared(root) == first
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    os.utime(root / "red" / "0.png", (1, 1))
    assert prepared(root).fingerprint == first.fingerprint, "touched, but the same"
    assert len(list(Path("data").iterdir())) == 1
    picture("red", 1234).save(root / "red" / "0.png")
    changed = prepared(root)
    assert changed.fingerprint != first.fingerprint
    shutil.rmtree(root)
    assert open_prepared(Path("data"), "p", first.fingerprint) == first, "the old one stays"


def test_the_folder_says_where_it_came_from(tmp_path):
    data = prepared(make_folder(tmp_path / "p", 4), color="grey")
    known = json.loads((Path(data.folder) / "source.json").read_text())
    assert known["source"] == str(tmp_path / "p") and known["options"]["color"] == "grey"
