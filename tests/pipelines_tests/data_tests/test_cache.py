"""What was prepared before: its name, whose it is, what it takes, and what may go."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from image_folders import make_folder, picture

from pipelines.data.custom import prepare
from pipelines.data.custom.cache import earlier_data, superseded
from pipelines.data.custom.prepare import is_unchanged, prepare_custom
from pipelines.data.custom.sources import custom_source
from pipelines.data.prepared import PreparedData, open_prepared
from pipelines.images.options import ImageOptions
from sweeps.cli.main import main

WORK = Path("work")
DATA = WORK / "data"


def prepared(source: Path | str, name: str | None = None, **options: str) -> PreparedData:
    return prepare_custom(custom_source(str(source)), DATA, ImageOptions(**options), name=name)


def changed(root: Path, seed: int) -> Path:
    picture("red", seed).save(root / "red" / "0.png")
    return root


# Names


def test_two_sources_of_one_name_get_two_names_that_stay(tmp_path):
    first = make_folder(tmp_path / "a" / "photos", 4)
    second = make_folder(tmp_path / "b" / "photos", 5)
    assert prepared(first).name == "photos"
    other = prepared(second)
    assert other.name.startswith("photos-") and len(other.name) == len("photos-") + 6
    assert f"called {other.name}, because photos is the name of other data here" in other.notes
    assert prepared(second) == other, "it is found again"
    assert prepared(changed(second, 77)).name == other.name
    assert prepared(changed(first, 77)).name == "photos"
    assert prepared(first, color="grey").name == "photos"
    shutil.rmtree(tmp_path / "a")
    assert prepared(changed(second, 78)).name == other.name


def test_what_was_moved_keeps_its_name_whatever_becomes_of_it(tmp_path):
    root = make_folder(tmp_path / "a" / "photos", 4)
    first = prepared(root)
    (tmp_path / "b").mkdir()
    root = root.rename(tmp_path / "b" / "photos")
    assert prepared(root) == first
    assert prepared(changed(root, 77)).name == "photos"


def test_a_copy_has_the_name_until_it_is_changed(tmp_path):
    root = make_folder(tmp_path / "a" / "photos", 4)
    first = prepared(root)
    copy = Path(shutil.copytree(root, tmp_path / "b" / "photos"))
    assert prepared(copy) == first
    assert prepared(changed(root, 5)).name == "photos", "it had the name first"
    assert prepared(changed(copy, 6)).name != "photos"


def test_a_name_that_a_sweep_has_recorded_is_kept(tmp_path):
    make_folder(tmp_path / "a" / "photos", 4)
    prepared(tmp_path / "a" / "photos")
    root = make_folder(tmp_path / "b" / "photos", 5)
    assert prepared(root, name="photos").name == "photos"


# Earlier versions


def test_data_that_an_earlier_version_prepared_belong_to_their_source(tmp_path):
    root = make_folder(tmp_path / "photos", 4)
    data, source = prepared(root), custom_source(str(root))
    file = Path(data.folder) / "source.json"
    known = json.loads(file.read_text())
    assert is_unchanged(data, source, ImageOptions(), DATA)
    assert not is_unchanged(data, source, ImageOptions(color="grey"), DATA)
    old = prepare._signature(source, ImageOptions(), prepare._listed(source), 1)
    file.write_text(json.dumps(
        {"source": known["source"], "options": known["options"], "signature": old}
    ))  # fmt: skip
    (found,) = earlier_data(DATA, source)
    assert (found.version, found.owner) == (1, str(root))
    assert is_unchanged(data, source, ImageOptions(), DATA), "a sweep goes on with it"
    assert prepared(root) == data, "a new one reads it anew"
    assert earlier_data(DATA, source)[0].version == 2


# Cleaning


@pytest.fixture
def several(tmp_path) -> list[PreparedData]:
    """Three contents of one source; a sweep has begun over the first; and another source."""
    root = make_folder(tmp_path / "photos", 4)
    found = [prepared(changed(root, seed)) for seed in (1, 2, 3)]
    sweep = WORK / "sweeps" / "s"
    sweep.mkdir(parents=True)
    (sweep / "sweep.json").write_text(json.dumps({"data_fingerprint": found[0].fingerprint}))
    prepared(make_folder(tmp_path / "b" / "photos", 5))
    return found


def folders() -> set[str]:
    return {path.name for path in DATA.iterdir()}


def explore(*options: str) -> int:
    return main(["explore", "--dataset", "photos", "--work-dir", str(WORK), *options])


def test_explore_says_what_earlier_contents_take_and_leaves_them(several, capsys):
    before = folders()
    assert len(before) == 4 and explore() == 0
    out = capsys.readouterr().out
    assert "2 earlier prepared versions (other content or options) take 0 MB; --clean" in out
    assert folders() == before


def test_clean_removes_what_no_sweep_refers_to_and_nothing_else(several, tmp_path, capsys):
    before = folders()
    assert explore("--clean") == 0
    out = capsys.readouterr().out
    assert "removed 1 of 2 earlier prepared versions (0 MB); 1 are used by sweeps in work" in out
    assert before - folders() == {Path(several[1].folder).name}
    for data in (several[0], several[2]):
        assert open_prepared(DATA, "photos", data.fingerprint) == data
    assert superseded(DATA, custom_source(str(tmp_path / "photos")), several[2])
    assert explore("--clean") == 0, "once more is nothing"


def test_clean_removes_nothing_where_a_sweep_cannot_be_read(several, capsys):
    (WORK / "sweeps" / "t").mkdir()
    (WORK / "sweeps" / "t" / "sweep.json").mkdir()
    before = folders()
    assert explore("--clean") == 2
    error = capsys.readouterr().err
    assert "--clean must know what every sweep needs" in error and error.count("\n") == 1
    assert folders() == before


def test_clean_is_for_own_data(capsys):
    assert main(["explore", "--dataset", "digits", "--clean"]) == 2
    assert "--clean is for your own data" in capsys.readouterr().err
