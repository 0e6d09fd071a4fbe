"""A folder of files that nobody should have given: damaged, hostile, or of another kind.

Everything is small on the disk; what it claims to hold is not.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sqlite3
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from made_sweeps import made_trial, write_sweep

LONG = "n" * 300
DIGITS = "9" * 400
DEEP = 20_000


def make_hostile_files(folder: Path) -> None:
    """Fills an empty folder; commands are run in it."""
    for make in (
        _odd_paths,
        _stores,
        _configs,
        _passwords,
        _tables,
        _arrays,
        _pictures,
        _models,
        _sweeps,
    ):
        make(folder)


def _odd_paths(folder: Path) -> None:
    (folder / "file.txt").write_text("text\n")
    (folder / "empty").write_bytes(b"")
    (folder / "loop").symlink_to("loop")
    (folder / "left").symlink_to("right")
    (folder / "right").symlink_to("left")
    (folder / "dangling").symlink_to("nowhere/at/all")
    for name in ("fifo", "fifo.yaml", "fifo.csv", "fifo.npz", "fifo.png", "fifo.keras", "fifo.py"):
        os.mkfifo(folder / name)
    for name in ("zero.yaml", "zero.csv", "zero.npz", "zero.png", "zero.keras", "zero"):
        (folder / name).symlink_to("/dev/zero")
    for name in ("folder", "folder.yaml", "folder.csv", "folder.npz", "folder.png", "folder.keras"):
        (folder / name).mkdir()
    closed = folder / "closed"
    closed.mkdir()
    (closed / "inside.yaml").write_text("space: cnn\n")
    (closed / "inside.csv").write_text("path,label\n")
    (closed / "inside.png").write_bytes(b"x")
    closed.chmod(0)


def _stores(folder: Path) -> None:
    (folder / "text.db").write_text("no database\n")
    (folder / "header.db").write_bytes(b"SQLite format 3\x00" + b"\xff" * 4_000)
    of_runs = (
        "CREATE TABLE alembic_version (version_num VARCHAR(32));"
        "INSERT INTO alembic_version VALUES ('of a later version');"
        "CREATE TABLE runs (x INTEGER); CREATE TABLE experiments (x INTEGER);"
    )
    of_studies = (
        "CREATE TABLE version_info (version_info_id INTEGER, schema_version INTEGER,"
        " library_version VARCHAR(256)); INSERT INTO version_info VALUES (1, 999, '99.0');"
        "CREATE TABLE studies (x INTEGER); CREATE TABLE trials (x INTEGER);"
    )
    version = of_runs.partition("CREATE TABLE runs")[0]
    for name, script in (
        ("later", of_runs + of_studies.rpartition("CREATE TABLE trials")[0]),
        ("later_runs", of_runs),
        ("later_studies", version + of_studies),
    ):
        with contextlib.closing(sqlite3.connect(folder / f"{name}.db")) as connection:
            connection.executescript(script)


CONFIGS: dict[str, str | bytes] = {
    "nul": b"space: cnn\nname: a\x00b\n",
    "escaped_nul": 'space: cnn\nname: "a\\0b"\n',
    "nul_path": 'space: cnn\nwork-dir: "a\\0b"\n',
    "nested": "[" * DEEP,
    "nested_map": "space: cnn\nset: " + "{a: " * DEEP,
    "nested_block": "".join(f"{' ' * depth}a:\n" for depth in range(2_000)),
    "aliases": "a: &a [x]\n" + "".join(f"{c}: &{c} [{', '.join([f'*{p}'] * 9)}]\n" for p, c in
                                       zip("abcdefgh", "bcdefghi", strict=True)),
    "circle": "space: cnn\nset: &a {filters: *a}\n",
    "binary": bytes(range(256)),
    "utf16": "space: cnn\n".encode("utf-16"),
    "list": "- space\n- cnn\n",
    "word": "cnn\n",
    "python": "space: !!python/object/apply:os.system ['true']\n",
    "two": "space: cnn\n---\nspace: mlp\n",
    "tab": "space:\tcnn\n\tepochs: 2\n",
    "unknown": "space: cnn\nspaec: mlp\n",
    "twice": "space: cnn\nspace: mlp\n",
    "list_key": "? [space]\n: cnn\n",
    "map_key": "? {space: cnn}\n: cnn\n",
    "null_key": "space: cnn\n~: 3\n",
    "list_value": "space: cnn\ntrials: [1, 2]\n",
    "map_value": "space: cnn\nname: {a: b}\n",
    "infinite": "space: cnn\ntrials: .inf\n",
    "digits": f"space: cnn\ntrials: {DIGITS}\n",
    "not_a_switch": "space: cnn\noffline: perhaps\n",
    "rules_list": "space: cnn\nset: [filters]\n",
    "rules_number": "space: cnn\nfix: 3\n",
    "rules_deep": "space: cnn\nset: {filters: {a: b}}\n",
    "rules_several": "space: cnn\nfix: {optimizer: [adam, sgd]}\n",
    "empty_sampler": "space: cnn\nsampler: ''\n",
    "empty_work_dir": "space: cnn\nwork-dir: ''\n",
    "empty_name": "space: cnn\nname: ''\n",
    "long_path": f"space: cnn\nwork-dir: {LONG}\n",
    "no_user": "space: cnn\nwork-dir: ~nosuchuser/x\n",
    "arabic": "space: cnn\ntrials: ٣\n",
    "command": "space: cnn\nresume: true\n",
    "large": b"# " + b"x" * 5_000_000 + b"\nspace: cnn\n",
}  # fmt: skip


def _configs(folder: Path) -> None:
    for name, text in CONFIGS.items():
        content = text if isinstance(text, bytes) else text.encode()
        (folder / f"config_{name}.yaml").write_bytes(content)


PASSWORDS: dict[str, bytes] = {
    "empty": b"",
    "short": b"secret\n",
    "nul": b"twelve\x00characters\n",
    "binary": bytes(range(128, 256)),
    "large": b"x" * 5_000_000,
    "lines": b"first-password-line\nsecond-password-line\n",
}


def _passwords(folder: Path) -> None:
    for name, content in PASSWORDS.items():
        (folder / f"{name}.password").write_bytes(content)
        (folder / f"{name}.password").chmod(0o600)


TABLES: dict[str, bytes] = {
    "empty": b"",
    "head_only": b"path,label\n",
    "no_label": b"path,color,shade\na.png,red,dark\n",
    "nul": b"path,label\na\x00b.png,cat\nc.png,dog\n",
    "nul_head": b"path\x00,label\na.png,cat\n",
    "utf16": "path,label\na.png,cat\n".encode("utf-16"),
    "long_cell": b"path,label\n" + b"x" * 200_000 + b",cat\n",
    "long_name": f"path,label\n{LONG}.png,cat\n{LONG}2.png,dog\n".encode(),
    "through_file": b"path,label\nfile.txt/a.png,cat\nfile.txt/b.png,dog\n",
    "loop": b"path,label\nloop/a.png,cat\nleft,dog\n",
    "fifo": b"path,label\nfifo.png,cat\nzero.png,dog\n",
    "no_images": b"path,label\na.png,cat\nb.png,dog\n",
    "twice": b"path,label\nsmall.png,cat\n./small.png,dog\n",
    "many_cells": b"path,label\nsmall.png,cat,3,4\n",
    "quote": b'path,label\n"small.png,cat\n',
    "split": b"path,label,split\nsmall.png,cat,later\n",
    "one_class": b"path,label\nsmall.png,cat\n",
    "no_user": b"path,label\n~nosuchuser/a.png,cat\n~nosuchuser/b.png,dog\n",
    "binary": bytes(range(256)) * 4,
}


def _tables(folder: Path) -> None:
    for name, content in TABLES.items():
        (folder / f"table_{name}.csv").write_bytes(content)


def npy(head: str, data: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    """An npy file with that text as its header."""
    text = head.encode("latin-1") + b"\n"
    size = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + size + text + data


def npy_of(descr: str, shape: str, data: bytes = b"", order: bool = False) -> bytes:
    """An npy file that claims a type and a shape."""
    return npy(f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}", data)


def plain(array: np.ndarray) -> bytes:
    """An array as numpy stores it."""
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


X = plain(np.zeros((6, 8, 8), np.uint8))
Y = plain(np.arange(6) % 2)
ARRAYS: dict[str, dict[str, bytes]] = {
    "nothing": {},
    "no_labels": {"x": X},
    "no_images": {"y": Y},
    "magic_only": {"x": b"\x93NUMPY", "y": Y},
    "no_magic": {"x": b"hello", "y": Y},
    "no_head": {"x": b"\x93NUMPY\x01\x00\xff\xff", "y": Y},
    "version": {"x": npy("{}", version=(9, 9)), "y": Y},
    "head_no_dict": {"x": npy("[1, 2]"), "y": Y},
    "head_empty_dict": {"x": npy("{}"), "y": Y},
    "head_code": {"x": npy("__import__('os').getcwd()"), "y": Y},
    "head_nested": {"x": npy("(" * 9_000), "y": Y},
    "head_open": {"x": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (6,"), "y": Y},
    "head_nul": {"x": npy("{'descr': '|u1',\x00 'fortran_order': False}"), "y": Y},
    "head_long": {"x": npy(" " * 70_000, version=(2, 0)), "y": Y},
    "negative": {"x": npy_of("'|u1'", "(-6, 8, 8)", bytes(384)), "y": Y},
    "negative_side": {"x": npy_of("'|u1'", "(6, -8, 8)", bytes(384)), "y": Y},
    "negative_both": {"x": npy_of("'|u1'", "(-6, 8, 8)"), "y": npy_of("'<i8'", "(-6,)")},
    "no_rows": {"x": npy_of("'|u1'", "(0, 8, 8)"), "y": npy_of("'<i8'", "(0,)")},
    "no_side": {"x": npy_of("'|u1'", "(6, 0, 8)"), "y": Y},
    "no_axes": {"x": npy_of("'|u1'", "()", b"1"), "y": Y},
    "labels_no_axes": {"x": X, "y": npy_of("'<i8'", "()", bytes(8))},
    "text_shape": {"x": npy_of("'|u1'", "('6', 8, 8)"), "y": Y},
    "float_shape": {"x": npy_of("'|u1'", "(6.0, 8, 8)"), "y": Y},
    "bool_shape": {"x": npy_of("'|u1'", "(True, 8, 8)"), "y": Y},
    "digits_shape": {"x": npy_of("'|u1'", f"({DIGITS}, 8, 8)"), "y": Y},
    "many_rows": {"x": npy_of("'|u1'", "(10000000000, 8, 8)"),
                  "y": npy_of("'<i8'", "(10000000000,)")},
    "wide_row": {"x": npy_of("'|u1'", "(6, 1000000, 1000000)"), "y": Y},
    "wide_labels": {"x": X, "y": npy_of("'<i8'", "(6, 100000000000)")},
    "many_axes": {"x": npy_of("'|u1'", f"({'1, ' * 70})", b"1"), "y": Y},
    "objects": {"x": npy_of("'|O'", "(6, 8, 8)"), "y": Y},
    "structured": {"x": npy_of("[('a', '<f4'), ('b', '<i4')]", "(6, 8, 8)", bytes(3072)), "y": Y},
    "deep_type": {"x": npy_of("[" * 400 + "('a', '<f4')" + "]" * 400, "(6, 8, 8)"), "y": Y},
    "no_type": {"x": npy_of("'zz'", "(6, 8, 8)"), "y": Y},
    "number_type": {"x": npy_of("3", "(6, 8, 8)"), "y": Y},
    "void": {"x": npy_of("'|V0'", "(6, 8, 8)"), "y": Y},
    "wide_void": {"x": npy_of("'|V2000000000'", "(6, 8, 8)"), "y": Y},
    "text_pixels": {"x": npy_of("'<U4'", "(6, 8, 8)", bytes(6144)), "y": Y},
    "complex": {"x": npy_of("'<c8'", "(6, 8, 8)", bytes(3072)), "y": Y},
    "dates": {"x": X, "y": npy_of("'<M8[s]'", "(6,)", bytes(48))},
    "fortran": {"x": npy_of("'|u1'", "(6, 8, 8)", bytes(384), order=True), "y": Y},
    "truncated": {"x": X[:-10], "y": Y},
    "trailing": {"x": X + b"more", "y": Y},
    "not_finite": {"x": plain(np.full((6, 8, 8), np.nan, np.float32)), "y": Y},
    "one_class": {"x": X, "y": plain(np.zeros(6, np.int64))},
    "fractions": {"x": X, "y": plain(np.arange(6) / 4)},
    "labels_objects": {"x": X, "y": npy_of("'|O'", "(6,)")},
    "labels_void": {"x": X, "y": npy_of("'|V4'", "(6,)", bytes(24))},
    "names_no_axes": {"x": X, "y": Y, "class_names": npy_of("'<U3'", "()", bytes(12))},
    "names_wide": {"x": X, "y": Y, "class_names": npy_of("'<U500000000'", "(2,)")},
    "names_negative": {"x": X, "y": Y, "class_names": npy_of("'<U3'", "(-2,)")},
    "names_bytes": {"x": X, "y": Y, "class_names": npy_of("'|V3'", "(2,)", bytes(6))},
    "five_channels": {"x": plain(np.zeros((6, 8, 8, 5), np.uint8)), "y": Y},
    "too_small": {"x": plain(np.zeros((6, 1, 1), np.uint8)), "y": Y},
    "other_length": {"x": X, "y": plain(np.arange(5) % 2)},
}  # fmt: skip


def _zip(members: Mapping[str, bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", kind) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def _patched(archive: bytes, offset: int, value: int) -> bytes:
    """An archive whose heads all say something else in one field of two bytes.

    Args:
        offset: of the field in a local head; it is two bytes later in the central one.
    """
    found = bytearray(archive)
    for signature, place in ((b"PK\x03\x04", offset), (b"PK\x01\x02", offset + 2)):
        start = found.find(signature)
        while start >= 0:
            struct.pack_into("<H", found, start + place, value)
            start = found.find(signature, start + 4)
    return bytes(found)


ENCRYPTED, METHOD = 6, 8
"""Fields of a zip member's local head: its flags, of which the first bit says that it is encrypted,
and its compression."""


def _arrays(folder: Path) -> None:
    for name, members in ARRAYS.items():
        content = _zip({f"{member}.npy": data for member, data in members.items()})
        (folder / f"arrays_{name}.npz").write_bytes(content)
    good = _zip({"x.npy": X, "y.npy": Y})
    (folder / "arrays_encrypted.npz").write_bytes(_patched(good, ENCRYPTED, 1))
    (folder / "arrays_method.npz").write_bytes(_patched(good, METHOD, 99))
    (folder / "arrays_lzma.npz").write_bytes(_patched(good, METHOD, 14))
    (folder / "arrays_cut.npz").write_bytes(good[:-30])
    (folder / "arrays_not_zip.npz").write_bytes(b"not a zip file")
    (folder / "arrays_empty.npz").write_bytes(b"")
    zeros = npy_of("'<i8'", "(6, 40000000)", bytes(2_000_000))
    (folder / "arrays_bomb.npz").write_bytes(
        _zip({"x.npy": X, "y.npy": zeros}, zipfile.ZIP_DEFLATED)
    )
    for kind, change in (("encrypted", (ENCRYPTED, 1)), ("method", (METHOD, 99))):
        home = folder / f"mnist_{kind}"
        home.mkdir()
        (home / "mnist.npz").write_bytes(_patched(good, *change))
    home = folder / "mnist_nested"
    home.mkdir()
    names = ("x_train", "y_train", "x_test", "y_test")
    (home / "mnist.npz").write_bytes(_zip({f"{name}.npy": npy("(" * 9_000) for name in names}))
    home = folder / "mnist_huge"
    home.mkdir()
    huge = npy_of("'|u1'", "(100000000, 1000, 1000)")
    (home / "mnist.npz").write_bytes(_zip({f"{name}.npy": huge for name in names}))


def _png(width: int, height: int, data: bytes, color: int = 2, depth: int = 8) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    ends = chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + ends


def _pictures(folder: Path) -> None:
    row = b"\x00" + b"\xff" * 24
    good = _png(8, 8, zlib.compress(row * 8))
    (folder / "small.png").write_bytes(good)
    squeezer = zlib.compressobj(9)
    line = b"\x00" + bytes(4 * 10_900)
    data = b"".join([*(squeezer.compress(line) for _ in range(50)), squeezer.flush()])
    pictures = {
        "cut": good[:50],
        "claims": _png(60_000, 60_000, zlib.compress(row)),
        "bomb": _png(10_900, 10_900, data, color=6) + bytes(20_000),
        "no_pixels": _png(0, 0, b""),
        "text": b"not a picture",
        "script": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n",
        "drawing": b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>',
        "empty": b"",
    }
    for name, content in pictures.items():
        (folder / f"picture_{name}.png").write_bytes(content)
        for label in ("cat", "dog"):
            place = folder / f"pictures_{name}" / label
            place.mkdir(parents=True)
            (place / "one.png").write_bytes(content)
            for number in range(8):  # Else there are too few, and no picture is looked at.
                shade = b"\x00" + bytes([20 * number + 10 * (label == "dog")]) * 24
                fine = _png(8, 8, zlib.compress(shade * 8))
                (place / f"fine{number}.png").write_bytes(fine)
    (folder / "pictures_none" / "cat").mkdir(parents=True)
    (folder / "pictures_loose").mkdir()
    (folder / "pictures_loose" / "small.png").write_bytes(good)
    for label in ("cat", "dog"):
        place = folder / "pictures_fifo" / label
        place.mkdir(parents=True)
        os.mkfifo(place / "one.png")
        (place / "two.png").symlink_to("two.png")


METADATA = json.dumps({"keras_version": "3.15.1"}).encode()


def keras_config(*layers: tuple[str, dict[str, Any]], shape: tuple[int, ...] = (8, 8, 1)) -> bytes:
    """The config of a sequential model of Keras' own layers."""
    first = {"class_name": "InputLayer", "module": "keras.layers", "registered_name": None,
             "config": {"batch_shape": [None, *shape], "dtype": "float32", "name": "in"}}  # fmt: skip
    rest = [
        {"class_name": name, "module": "keras.layers", "registered_name": None,
         "config": {"name": f"layer_{index}", "trainable": True, "dtype": "float32", **config}}
        for index, (name, config) in enumerate(layers)
    ]  # fmt: skip
    model = {"class_name": "Sequential", "module": "keras", "registered_name": "Sequential",
             "config": {"name": "model", "trainable": True, "layers": [first, *rest]}}  # fmt: skip
    return json.dumps(model).encode()


def _models(folder: Path) -> None:
    flat: tuple[str, dict[str, Any]] = ("Flatten", {})
    small = keras_config(flat, ("Dense", {"units": 3, "activation": "softmax"}))
    archives: dict[str, dict[str, bytes]] = {
        "nothing": {},
        "no_config": {"metadata.json": METADATA},
        "no_weights": {"metadata.json": METADATA, "config.json": small},
        "nested": {"metadata.json": METADATA, "config.json": b"[" * 100_000},
        "no_json": {"metadata.json": METADATA, "config.json": b"{"},
        "number": {"metadata.json": METADATA, "config.json": b"3"},
        "digits": {"metadata.json": METADATA, "config.json": b"9" * 5_000},
        "lambda": {"metadata.json": METADATA, "config.json": keras_config(("Lambda", {}))},
        "huge": {"metadata.json": METADATA, "config.json": keras_config(
            flat, ("Dense", {"units": 30_000_000, "activation": "softmax"}))},
        "huge_input": {"metadata.json": METADATA, "config.json": keras_config(
            ("GlobalAveragePooling2D", {}), ("Dense", {"units": 3, "activation": "softmax"}),
            shape=(60_000, 60_000, 1))},
        "huge_layer": {"metadata.json": METADATA, "config.json": keras_config(
            ("UpSampling2D", {"size": [20_000, 20_000]}), ("GlobalAveragePooling2D", {}),
            ("Dense", {"units": 3, "activation": "softmax"}))},
    }  # fmt: skip
    for name, members in archives.items():
        (folder / f"model_{name}.keras").write_bytes(_zip(members))
    good = _zip({"metadata.json": METADATA, "config.json": small, "model.weights.h5": b"x"})
    (folder / "model_bad_weights.keras").write_bytes(good)
    (folder / "model_encrypted.keras").write_bytes(_patched(good, ENCRYPTED, 1))
    (folder / "model_method.keras").write_bytes(_patched(good, METHOD, 99))
    (folder / "model_cut.keras").write_bytes(good[:-20])
    (folder / "model_text.keras").write_bytes(b"not a model")
    (folder / "model_pickle.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    bomb = _zip(
        {"metadata.json": METADATA, "config.json": b" " * 200_000_000}, zipfile.ZIP_DEFLATED
    )
    (folder / "model_bomb.keras").write_bytes(bomb)


Change = Callable[[dict[str, Any]], Any]


def _set(*keys: str, to: object) -> Change:
    def change(body: dict[str, Any]) -> dict[str, Any]:
        place = body
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = to
        return body

    return change


def _without(key: str) -> Change:
    return lambda body: {name: value for name, value in body.items() if name != key}


SWEEP_FILES: dict[str, bytes | Change] = {
    "empty": b"",
    "cut": b'{"format": 2, "uid"',
    "nul": bytes(100),
    "latin": b'{"format": 2, "uid": "\xe9"}',
    "list": b"[1, 2]",
    "number": b"3",
    "null": b"null",
    "nested": b"[" * 100_000,
    "digits": b'{"format": ' + b"9" * 5_000 + b"}",
    "later": _set("format", to=99),
    "format_text": _set("format", to="2"),
    "format_null": _set("format", to=None),
    "format_list": _set("format", to=[2]),
    "format_negative": _set("format", to=-1),
    "no_uid": _without("uid"),
    "uid_number": _set("uid", to=3),
    "uid_quote": _set("uid", to="a' OR '1'='1"),
    "status": _set("status", to="asleep"),
    "kind": _set("kind", to="dance"),
    "no_settings": _without("settings"),
    "settings_list": _set("settings", to=[]),
    "settings_text": _set("settings", to="cnn"),
    "no_space": _set("settings", to={"name": "no_space"}),
    "space_number": _set("settings", "space", to=3),
    "objective_number": _set("settings", "objective", to=3),
    "objective_unknown": _set("settings", "objective", to="beauty"),
    "seed_text": _set("settings", "seed", to="zero"),
    "epochs_text": _set("settings", "num_epochs", to="many"),
    "trials_list": _set("settings", "num_trials", to=[3]),
    "narrowed_number": _set("settings", "narrowed", to=3),
    "narrowed_text": _set("settings", "narrowed", to="filters=3"),
    "limits_numbers": _set("settings", "limits", to=[1, 2]),
    "work_dir_number": _set("settings", "work_dir", to=3),
    "uri_number": _set("settings", "tracking_uri", to=3),
    "storage_null": _set("settings", "storage", to=None),
    "name_list": _set("settings", "name", to=["x"]),
    "data_number": _set("data_name", to=3),
    "fingerprint_null": _set("data_fingerprint", to=None),
}
"""What a sweep's sweep.json may hold; a function changes a whole one."""

RECORDS: dict[str, bytes] = {
    "no_json": b"{\n",
    "list": b"[1]\n",
    "number": b"3\n",
    "empty_line": b"\n",
    "binary": b"\xff\xfe\x00\n",
    "nested": b"[" * 100_000 + b"\n",
    "no_kind": b'{"key": "x", "body": {}}\n',
    "no_body": b'{"kind": "TrialEnd", "key": "x"}\n',
    "later_kind": b'{"kind": "DreamRecord", "key": "x", "body": {}}\n',
    "later_field": b'{"kind": "SweepTagsRecord", "key": "sweep/tags/7", "body": {"tags": {}, '
                   b'"at_ms": 7, "mood": "good"}}\n',
    "kind_list": b'{"kind": [], "key": "x", "body": {}}\n',
    "key_number": b'{"kind": "SweepTagsRecord", "key": 3, "body": {"tags": {}, "at_ms": 7}}\n',
    "body_list": b'{"kind": "SweepTagsRecord", "key": "x", "body": [1]}\n',
    "tags_list": b'{"kind": "SweepTagsRecord", "key": "sweep/tags/8", "body": {"tags": [1], '
                 b'"at_ms": 8}}\n',
    "tag_number": b'{"kind": "SweepTagsRecord", "key": "sweep/tags/9", "body": {"tags": {"a": 3}, '
                  b'"at_ms": 9}}\n',
    "time_text": b'{"kind": "SweepTagsRecord", "key": "sweep/tags/x", "body": {"tags": {}, '
                 b'"at_ms": "x"}}\n',
    "number_text": b'{"kind": "TrialRecord", "key": "trial-x", "body": {"number": "x", '
                   b'"name": "x", "params": {}, "tags": {}, "at_ms": 7}}\n',
    "params_list": b'{"kind": "TrialRecord", "key": "trial-7", "body": {"number": 7, '
                   b'"name": "x", "params": [], "tags": {}, "at_ms": 7}}\n',
    "epochs_text": b'{"kind": "TrialRecord", "key": "trial-8", "body": {"number": 8, "name": "x", '
                   b'"params": {"max_epochs": "x"}, "tags": {}, "at_ms": 7}}\n',
    "metric_text": b'{"kind": "EpochRecord", "key": "trial-0/epoch-9", "body": {"number": 0, '
                   b'"epoch": 9, "metrics": {"val_accuracy": "high"}, "at_ms": 7}}\n',
    "state": b'{"kind": "TrialEnd", "key": "trial-0/end-2", "body": {"number": 0, '
             b'"state": "ASLEEP", "at_ms": 7}}\n',
    "status": b'{"kind": "SweepStateRecord", "key": "sweep/asleep/7", "body": '
              b'{"status": "ASLEEP", "at_ms": 7}}\n',
}  # fmt: skip
"""A line in the middle of a spool that nobody wrote."""

ANSWERS: dict[str, bytes] = {
    "no_json": b"{\n" * 2,
    "list": b"[1]\n",
    "no_key": b'{"id": "x"}\n',
    "id_number": b'{"key": "sweep", "id": 3}\n',
    "many": b'{"key": "sweep"}\n' * 50,
    "nested": b"[" * 100_000 + b"\n",
}


def _sweeps(folder: Path) -> None:
    work_dir = folder / ".sweeps"
    point = {"units": 32, "layers": 1}
    records = [*made_trial(0, [0.5, 0.6, 0.7], point), *made_trial(1, [0.4], point, state="PAUSED")]
    good = write_sweep(work_dir, "good", records, status="interrupted")
    body = json.loads(good.state.read_text())
    lines = (good.spool / "records.jsonl").read_bytes().splitlines(keepends=True)

    def copied(name: str) -> Path:
        place = work_dir / "sweeps" / name
        (place / "spool" / "files").mkdir(parents=True)
        own = {**body, "settings": {**body["settings"], "name": name}}
        (place / "sweep.json").write_text(json.dumps(own))
        (place / "spool" / "records.jsonl").write_bytes(b"".join(lines))
        (place / "spool" / "sent.jsonl").write_bytes(b"")
        return place

    for name, change in SWEEP_FILES.items():
        path = copied(f"file-{name}") / "sweep.json"
        is_whole = isinstance(change, bytes)
        path.write_bytes(
            change if is_whole else json.dumps(change(json.loads(path.read_text()))).encode()
        )
    for name, line in RECORDS.items():
        spool = copied(f"record-{name}") / "spool"
        (spool / "records.jsonl").write_bytes(b"".join([*lines[:3], line, *lines[3:]]))
    for name, line in ANSWERS.items():
        spool = copied(f"answer-{name}") / "spool"
        (spool / "sent.jsonl").write_bytes(line)
    for name, target in (("zero", "/dev/zero"), ("loop", "sweep.json")):
        path = copied(f"path-{name}") / "sweep.json"
        path.unlink()
        path.symlink_to(target)
    path = copied("path-fifo") / "sweep.json"
    path.unlink()
    os.mkfifo(path)
    path = copied("path-folder") / "sweep.json"
    path.unlink()
    path.mkdir()
    path = copied("path-spool_fifo") / "spool" / "records.jsonl"
    path.unlink()
    os.mkfifo(path)
    # So that what is latest is whole.
    os.utime(good.state, (2_000_000_000, 2_000_000_000))


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    """Every path below a folder, with what changes when somebody writes there."""
    found: dict[str, tuple[object, ...]] = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            facts = path.lstat()
            is_folder = name in folders
            content: object = () if is_folder else (facts.st_size, facts.st_mtime_ns)
            found[str(path.relative_to(folder))] = (facts.st_mode, content)
    return found
