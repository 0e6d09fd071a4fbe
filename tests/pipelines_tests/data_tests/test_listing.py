"""Layouts of folders and tables as people have them: read, or the hint names what is meant."""

from __future__ import annotations

import os
import sys

import pytest

from pipelines.data.custom.listing import list_folder, list_table
from search_spaces.errors import InputError


def put(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def test_parts_under_names_of_their_own_are_no_classes(tmp_path):
    for part in ("seg_train", "seg_test"):
        for name in ("sea", "street"):
            put(tmp_path / part / part / name, "1.png")
    with pytest.raises(InputError, match="seg_test, seg_train .*each with sea, street. Name them"):
        list_folder(tmp_path)


@pytest.mark.parametrize("names", [("cat", "dog"), ("train_station", "bus_stop")])
def test_classes_may_hold_folders_of_the_same_names(tmp_path, names):
    for name in names:
        for side in ("front", "back"):
            put(tmp_path / name / side, "1.png")
    assert set(list_folder(tmp_path).labels) == set(names)


@pytest.mark.skipif(sys.platform == "darwin", reason="names are UTF-8 there")
def test_a_class_whose_name_is_no_text_is_refused(tmp_path):
    put(tmp_path / "a", "1.png")
    put(tmp_path / os.fsdecode(b"ph\xf6to"), "1.png")
    with pytest.raises(InputError, match=r"UTF-8.*ph\\xf6to"):
        list_folder(tmp_path)


def test_the_images_of_a_table_may_lie_in_several_folders(tmp_path):
    put(tmp_path / "part_1", "a.png", "b.png")
    put(tmp_path / "part_2", "c.png")
    table = tmp_path / "meta.csv"
    table.write_text("image_id,dx\na,x\nc,y\nd,y\nb,x\n")
    found = list_table(table)
    places = [str(path.relative_to(tmp_path)) for path in found.paths]
    assert places == ["part_1/a.png", "part_2/c.png", "part_1/d", "part_1/b.png"]
    assert "part_1" in found.notes[0] and "part_2" in found.notes[0]


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("lesion_id,image_id,dx,dx_type", "a label column .label. beside 'image_id', the column"),
        ("a,b,label", "a path column .path. beside 'label', the column of labels"),
        ("a,b,c", "a path column and a label column .path,label.\\."),
    ],
)
def test_a_table_is_told_which_column_it_lacks(tmp_path, head, words):
    table = tmp_path / "meta.csv"
    table.write_text(f"{head}\n{','.join('1' * len(head.split(',')))}\n")
    with pytest.raises(InputError, match=words):
        list_table(table)
