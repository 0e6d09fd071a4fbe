"""What `benchmarks/peers.py` says of its results; how good the sides are is not judged."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VERSIONS = {"optuna": "5.0.0"}
CORES = len(os.sched_getaffinity(0))


@pytest.fixture(autouse=True)
def _scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def line(part, side, found, repeat=0, **options):
    return {
        "part": part, "side": side, "trials": 0, "repeat": repeat, "options": options,
        "found": found, "versions": VERSIONS, "cores": CORES, "load": 0.5 + repeat,
        "at": "2026-11-28 12:00", "commit": "abc1234",
    }  # fmt: skip


def searched(*points):
    return {"curve": [list(point) for point in points], "epochs": 4, "trials": 2}


def test_a_curve_has_the_new_bests_only_up_to_its_time():
    from peer_parts.search import best_so_far

    points = [(30.0, 0.97), (10.0, 0.9), (20.0, 0.8), (40.0, 0.97), (50.0, 0.99)]
    assert best_so_far(points, 45.0) == [(10.0, 0.9), (30.0, 0.97)]
    assert best_so_far([]) == []


def test_a_level_is_reached_at_the_first_value_that_is_not_below_it():
    from peer_parts.search import seconds_to

    curve = [(10.0, 0.9), (30.0, 0.97), (50.0, 0.99)]
    assert seconds_to(curve, 0.97) == 30.0
    assert seconds_to(curve, 0.995) == math.inf == seconds_to([], 0.5)


def test_the_table_of_a_search_has_the_median_and_the_range_of_the_seeds():
    from peer_parts import search
    from peer_parts.results import table_of

    found = {
        "ours": [searched((10, 0.9), (20, 0.995)), searched((12, 0.991)), searched((9, 0.98))],
        "Ray Tune: PBT": [{"curve": [], "epochs": 0, "trials": 0}],
    }
    rows = table_of(search, found, {"dataset": "digits", "minutes": 1.0})
    assert "| 0.98 after | 0.99 after | best |" in rows[0]
    assert rows[2] == (
        "| ours | 10 s (9 s to 12 s) | 12 s (9 s to 20 s) | 20 s (12 s to never) "
        "| 0.9910 (0.9800 to 0.9950) | 4 | 2 |"
    )
    assert rows[3].startswith("| Ray Tune: PBT | never | never | never | nan |")


def test_what_is_done_already_is_found_by_part_side_trials_and_options(tmp_path):
    import peers

    path = tmp_path / "results.jsonl"
    lines = [
        line("search", "ours", searched((1, 0.5)), dataset="digits", minutes=1.0),
        line("search", "ours", searched((1, 0.6)), dataset="mnist", minutes=1.0),
        line("disk", "ours", {}),
    ]
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    given = peers.argparse.Namespace(
        part="search", trials=0, dataset="mnist", minutes=1.0, seed=7, output=path
    )
    assert peers.known(given, "ours") == [lines[1]]
    path.write_text(json.dumps({**lines[1], "processor": "another"}) + "\n")
    assert peers.known(given, "ours") == []


def test_a_statement_counts_once_however_long_it_is_and_docstrings_do_not():
    from peer_parts.contact import statements

    source = '"""Two\nlines."""\n\n# why\nx = [\n    1,\n]  # one list\n\ndef f():\n    """Why."""\n    return x\n'
    assert statements(source) == 3


def test_a_line_that_a_kill_has_cut_off_is_replaced_by_the_next(tmp_path):
    from peer_parts.results import append, lines_of

    path = tmp_path / "results.jsonl"
    append(path, {"a": 1})
    with path.open("a") as file:
        file.write('{"a": 2, "b')
    assert lines_of(path) == [{"a": 1}]
    append(path, {"a": 3})
    assert lines_of(path) == [{"a": 1}, {"a": 3}]


def test_repetitions_are_paired_by_their_number_not_by_their_place():
    from peer_parts import disk, overhead
    from peer_parts.results import by_side

    lines = [
        line("overhead", side, (side, repeat), repeat)
        for side, repeat in [
            ("bare loop", 2),
            ("ours", 0),
            ("ours", 1),
            ("ours", 2),
            ("bare loop", 0),
        ]
    ]
    assert by_side(overhead, lines) == {
        "bare loop": [("bare loop", 0), ("bare loop", 2)], "ours": [("ours", 0), ("ours", 2)]
    }  # fmt: skip
    assert by_side(disk, lines) == {"ours": [("ours", 0), ("ours", 1), ("ours", 2)]}


def test_what_a_side_takes_over_the_bare_loop_is_paired_and_has_its_interval():
    from peer_parts import overhead

    bare = [[5.0, 8.0], [6.0, 9.0], [7.0, 10.0]]
    more = [[a + d, b + 1.0] for (a, b), d in zip(bare, (0.4, 0.5, 0.6), strict=True)]
    found = {
        side: {"a_trial": values, "first": [[9.0, 12.0]]}
        for side, values in (("bare loop", bare), ("ours", more))
    }
    # 4.303 is Student's t at 0.975 with 2 degrees of freedom: 4.303 * 0.1 / sqrt(3) = 0.248.
    assert overhead.table(found)[-1] == (
        "| ours | 6.50 (10.00) | +0.50 (+0.25 to +0.75) | +1.00 (+1.00 to +1.00) | 9.0 (12.0) |"
    )


def test_all_sides_train_validate_and_test_on_the_parts_that_are_given():
    import numpy as np
    from peer_parts.images import in_parts

    x, y = np.arange(100), np.arange(100) % 10
    found = in_parts(x, y, (60, 20, 10))
    assert {name: len(array) for name, array in found.items()} == {
        "x_train": 60, "y_train": 60, "x_val": 20, "y_val": 20, "x_test": 10, "y_test": 10
    }  # fmt: skip
    assert found["x_val"][0] == 60
    assert len(in_parts(x[:45], y[:45], (60, 20, 10))["x_train"]) == 30


def test_a_plot_takes_sides_that_were_measured_at_other_marks(tmp_path):
    from peer_parts.report import scale_plot

    found = {
        "Optuna, random": [{"milliseconds": {"100": [50, 40], "2000": [90, 80]}}],
        "ours, random": [
            {"milliseconds": {"100": [9, 8], "10000": [30, 20]}},
            {"milliseconds": {"100": [9, 8], "1000": [20, 20]}},
        ],
    }
    assert "(images/peers-scale.svg)" in scale_plot(found, tmp_path / "images")


def test_the_readmes_table_has_the_better_of_two_programs_of_a_tool():
    from peer_parts.readme import readme_lines

    lines = [
        line("search", side, searched((10, 0.5), (seconds, best)), dataset="mnist", minutes=5.0)
        for side, seconds, best in [
            ("ours", 45, 0.9955), ("Optuna: TPE, median", 42, 0.9952),
            ("Optuna: TPE, Hyperband", 40, 0.9951), ("Ray Tune: PBT", 80, 0.98),
        ]
    ]  # fmt: skip
    table = readme_lines(lines)
    assert table[0] == "| question | keras-sweeps | Optuna | Keras Tuner | Ray Tune | n |"
    assert len(table) == 3, "what was not measured is left out"
    assert table[2] == (
        "| MNIST, 5 minutes: 0.990 after; best "
        "| 45 s; 0.9955 | 42 s; 0.9952 |  | never; 0.9800 | 1 |"
    )


def test_the_readme_is_what_the_script_writes_from_the_results():
    import peers
    from peer_parts.readme import readme_lines
    from peer_parts.report import filled

    text = (ROOT / "README.md").read_text()
    assert "<!-- peers -->" in text
    table = readme_lines(peers.lines_of(peers.RESULTS))
    assert filled(text, "peers", table, tight=True) == text


def test_the_report_fills_what_is_between_its_markers_and_nothing_else(tmp_path):
    from peer_parts import search
    from peer_parts.report import write_report

    page = tmp_path / "benchmarks.md"
    page.write_text(
        "# Words\n\n<!-- settings -->\n<!-- end of settings -->\n\nmore\n\n<!-- search -->\nold\n"
        "<!-- end of search -->\n\nlast\n"
    )
    lines = [
        line("search", side, searched((10, value)), repeat, dataset="digits", minutes=1.0)
        for repeat in (0, 1)
        for side, value in (("Optuna: TPE, median", 0.98), ("ours", 0.99))
    ]
    for _ in range(2):  # Writing it again changes nothing.
        write_report(lines, {"search": search, "disk": search}, tmp_path)
        text = page.read_text()
        assert "old" not in text and text.startswith("# Words\n") and text.endswith("last\n")
        assert text.index("| ours | 10 s") < text.index("| Optuna: TPE, median | 10 s")
        assert (
            "n = 2" in text
            and "before each 0.5 to 1.5" in text
            and "optuna 5.0.0" in text
            and "MedianPruner()" in text
        )
        assert text.count("(images/peers-search-digits-1-minutes.svg)") == 1
    assert (
        (tmp_path / "images" / "peers-search-digits-1-minutes.svg").read_text().startswith("<?xml")
    )


def test_the_page_is_what_the_script_writes_from_the_results(tmp_path):
    import peers
    from peer_parts.report import write_report

    page = ROOT / "docs" / "benchmarks.md"
    (tmp_path / page.name).write_text(page.read_text())
    write_report(peers.lines_of(peers.RESULTS), peers.PARTS, tmp_path)
    assert (tmp_path / page.name).read_text() == page.read_text()


def test_every_program_that_a_side_names_is_there_and_is_valid():
    from peer_parts.contact import num_statements
    from peer_parts.whole_sweeps import SIDES

    assert all(num_statements(side) >= 3 for side in SIDES)


def test_a_side_whose_packages_are_missing_is_named_and_left_out(tmp_path, monkeypatch, capsys):
    import peers
    from peer_parts import disk, whole_sweeps

    monkeypatch.setattr(whole_sweeps.importlib.util, "find_spec", lambda name: None)
    assert whole_sweeps.missing("ours") == ""
    assert whole_sweeps.missing("Ray Tune: PBT") == "ray, tensorboardX"
    assert not peers.is_there(disk, "Ray Tune: PBT", peers.argparse.ArgumentParser())
    assert "left out, ray, tensorboardX is not installed" in capsys.readouterr().err


def test_a_side_that_fails_is_named_and_the_others_are_run(tmp_path, monkeypatch, capsys):
    import peers

    def run(given, side):
        if side == "ours":
            raise peers.subprocess.CalledProcessError(1, "ours")
        return {"statements": 3, "first_epoch": 1.0, "all": 2.0}

    monkeypatch.setattr(peers, "in_a_folder", run)
    output = tmp_path / "found.jsonl"
    given = ["--part", "contact", "--peer", "ours", "--peer", "Keras Tuner: random"]
    assert peers.main([*given, "--output", str(output)]) == 1
    assert "contact, ours failed" in capsys.readouterr().err
    (found,) = peers.lines_of(output)
    assert found["side"] == "Keras Tuner: random" and found["commit"]


def test_a_peer_without_its_part_is_refused(capsys):
    import peers

    with pytest.raises(SystemExit) as refused:
        peers.main(["--peer", "ours"])
    assert refused.value.code == 2 and "--peer needs --part" in capsys.readouterr().err


def test_an_unknown_side_is_refused_with_the_names_of_all(capsys):
    import peers

    with pytest.raises(SystemExit) as refused:
        peers.main(["--part", "search", "--only", "Optuna"])
    assert refused.value.code == 2
    assert "Optuna: TPE, median; " in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize(
    ("part", "side", "options", "wanted"),
    [
        ("disk", "ours", ["--trials", "2"], r"\| ours \| 2 \| \d+\.0 \| \d+\.\d\d \|"),
        ("contact", "ours", [], r"\| ours \| 3 \| \d+\.\d \| \d+\.\d \|"),
        ("search", "Keras Tuner: random", ["--minutes", "0.3"],
         r"\| Keras Tuner: random \| (\d+ s|never) \|"),
    ],
)  # fmt: skip
def test_a_part_runs_to_its_end(part, side, options, wanted, tmp_path):
    runs_to_its_end(part, side, options, wanted, tmp_path)


@pytest.mark.peers
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("part", "side", "options"),
    [
        ("contact", "Optuna: TPE, median", []),
        ("contact", "Keras Tuner: Hyperband", []),
        ("contact", "Ray Tune: ASHA, TPE", []),
        ("contact", "Ray Tune: PBT", []),
        ("faults", "Optuna", ["--trials", "2"]),
        ("scale", "Optuna, prior", ["--trials", "12"]),
    ],
)
def test_a_peers_program_runs_to_its_end(part, side, options, tmp_path):
    needed = {"Optuna: TPE, median": "optuna_integration", "Ray": "ray.tune"}
    for start, module in needed.items():
        if side.startswith(start):
            pytest.importorskip(module)
    runs_to_its_end(part, side, options, rf"\| {side} \| ", tmp_path)


def runs_to_its_end(part, side, options, wanted, tmp_path):
    command = [sys.executable, str(ROOT / "benchmarks" / "peers.py"), "--part", part]
    done = subprocess.run(
        [*command, "--only", side, "--output", "found.jsonl", *options],
        cwd=tmp_path, env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search(wanted, done.stdout) and "n = 1" in done.stdout
    (found,) = map(json.loads, (tmp_path / "found.jsonl").read_text().splitlines())
    assert found["side"] == side and found["versions"]["optuna"]
