"""From a sweep's winner to a champion and back, with real models and a real store."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from mlflow import MlflowClient

from sweeps.cli.main import main
from sweeps.interrupts import Interrupts
from sweeps.outcome import Outcome
from sweeps.promotion.gate import Limits
from sweeps.promotion.promotion import Promotion, PromotionRequest, who
from sweeps.promotion.rollback import version_before
from tracking.models.model_store import ModelStore
from tracking.models.registry import ChampionChange

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[3]
NAME = "mlp-digits"


def run_sweep(folder: Path, *options: str) -> str:
    hidden = ("SWEEPS_DATA_DIR", "MLFLOW_TRACKING_URI")
    environment = {key: value for key, value in os.environ.items() if key not in hidden}
    done = subprocess.run(
        [sys.executable, str(ROOT / "sweeps" / "run.py"), "--space", "mlp", "--dataset", "digits",
         "--pruner", "none", "--tracking-uri", store_of(folder), *options],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a weak sweep and one that is clearly better, with finalists."""
    path = tmp_path_factory.mktemp("promotion")
    run_sweep(path, "--name", "weak", "--trials", "1", "--epochs", "1", "--no-baselines",
              "--sampler", "random", "--seed", "3")  # fmt: skip
    out = run_sweep(path, "--name", "strong", "--trials", "1", "--epochs", "4", "--finalists",
                    "1", "--finalist-seeds", "2", "--retrain", "all")  # fmt: skip
    assert "Finalists: 1 configuration x 2 fresh seeds, 4 epochs each" in out
    assert "Its model is kept: trained on all data" in out
    return path


@pytest.fixture
def here(folder, monkeypatch) -> MlflowClient:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_of(folder))
    return MlflowClient(uri())


def store_of(folder: Path) -> str:
    """The whole address: MLflow keeps a store by its address, wherever a process is now."""
    return f"sqlite:///{folder / 'mlflow.db'}"


def uri() -> str:
    return os.environ["MLFLOW_TRACKING_URI"]


def dump() -> str:
    """Everything that the store holds."""
    with sqlite3.connect("mlflow.db") as connection:
        return "\n".join(connection.iterdump())


def champion(client: MlflowClient) -> int | None:
    return client.get_registered_model(NAME).aliases.get("champion")


def test_finalists_are_runs_below_the_sweeps_own(here, capsys):
    experiments = [e.experiment_id for e in here.search_experiments()]

    def runs(kind: str):
        text = f"tags.`sweeps.kind` = '{kind}' AND tags.`sweeps.sweep` = 'strong'"
        return here.search_runs(experiments, text)

    (sweep,), (final,) = runs("sweep"), runs("finalists")
    assert final.data.tags["mlflow.parentRunId"] == sweep.info.run_id
    assert (final.info.run_name, final.info.status) == ("strong finalists", "FINISHED")
    children = runs("finalist") + runs("retrained")
    assert len(children) == 3
    for child in children:
        assert child.data.tags["mlflow.parentRunId"] == final.info.run_id
        assert child.data.tags["sweeps.test_split_read"] == "true"
        assert 0.5 < child.data.metrics["test/accuracy"] <= 1
    for trial in runs("trial"):
        assert "sweeps.test_split_read" not in trial.data.tags
        assert not [name for name in trial.data.metrics if "test" in name]
    # The winner's model is the one on all data; the others are not kept.
    (winner,) = [child for child in children if child.data.tags.get("sweeps.winner")]
    assert winner.data.tags["sweeps.kind"] == "retrained"
    assert [len(child.outputs.model_outputs) for child in children] == [
        int(child is winner) for child in children
    ]
    low, mean, high = (
        final.data.metrics[f"winner/test_accuracy_{name}"] for name in ("low", "mean", "high")
    )
    assert low <= mean <= high
    assert main(["doctor", "strong"]) == 0
    capsys.readouterr()


def test_a_dry_run_writes_nothing(here, capsys):
    before = dump()
    assert main(["promote", "weak", "--dry-run", "--work-dir", "fresh"]) == 0
    out = capsys.readouterr().out
    assert "weak: best trial of 1 (single seed, so its score is optimistic);" in out
    assert main(["promote", "weak", "--dry-run", "--min-accuracy", "0.999"]) == 3
    assert dump() == before
    assert not Path("fresh").exists()
    out = capsys.readouterr().out
    assert "REFUSED  --min-accuracy: test accuracy" in out
    assert "the candidate would be refused; nothing was written" in out


def test_a_promotion_prints_nothing_itself(here, capsys, tmp_path):
    """What it says goes to whoever looks on, and how it ended is returned."""

    class Silent:
        def __init__(self) -> None:
            self.lines, self.rules = [], []

        def say(self, text):
            self.lines.append(text)

        def compared(self, candidate, champion):
            self.scores = (candidate, champion)

        def judged(self, rules):
            self.rules = list(rules)

    run_id, what = ModelStore(uri()).run_of_sweep("weak")
    request = PromotionRequest(
        uri=uri(), run_id=run_id, what=what, work_dir=tmp_path, dry_run=True,
        limits=Limits(min_accuracy=1.0),
    )  # fmt: skip
    view = Silent()
    result = Promotion(request, Interrupts(), view).run()
    assert (result.outcome, result.name, result.changed) == (Outcome.REFUSED, NAME, False)
    assert result.text == "dry run: the candidate would be refused; nothing was written"
    assert view.lines[0].startswith("candidate  ") and len(view.scores) == 2
    assert "--min-accuracy" in [rule.name for rule in view.rules if not rule.passed]
    assert capsys.readouterr().out == ""


def test_a_first_champion_needs_to_keep_the_limits(here, capsys):
    assert main(["promote", "weak", "--max-parameters", "10"]) == 3
    out = capsys.readouterr().out
    assert "REFUSED  --max-parameters" in out and "stays a candidate" in out
    assert champion(here) is None
    assert here.get_model_version(NAME, "1").tags["sweeps.standing"] == "refused"
    assert main(["promote", "weak"]) == 0
    out = capsys.readouterr().out
    assert "none yet for mlp-digits: only the limits apply" in out
    assert "bit for bit the same" in out
    assert "mlflow models serve -m 'models:/mlp-digits@champion'" in out
    assert champion(here) == 1


def test_a_better_candidate_is_accepted_and_carries_what_is_needed_to_trust_it(here, capsys):
    assert main(["promote", "strong"]) == 0
    out = capsys.readouterr().out
    assert "passed   better than the champion: accuracy +0." in out
    assert champion(here) == 2
    version = here.get_model_version(NAME, "2")
    tags = version.tags
    run = here.get_run(version.run_id)
    assert tags["sweeps.sweep"] == "strong" and tags["sweeps.kind"] == "retrained"
    assert tags["sweeps.seed"] == run.data.tags["sweeps.seed"]
    assert tags["sweeps.data_fingerprint"] == run.data.tags["sweeps.data_fingerprint"]
    assert float(tags["sweeps.test_accuracy"]) == pytest.approx(
        run.data.metrics["test/accuracy"], abs=1e-6
    )
    assert "n = 2" in tags["sweeps.test_accuracy_over_seeds"]
    assert len(tags["sweeps.finalist_seeds"].split(", ")) == 2
    assert json.loads(tags["sweeps.params"])["optimizer"] == "rmsprop"
    assert version.description.startswith("# mlp-digits: trial 0 (mlp_512x2), all data")
    store, names = ModelStore(uri()), "promotion/mlp-digits-version-2"
    assert store.registered(f"{NAME}@champion").version == 2
    files = sorted(f.path for f in here.list_artifacts(run.info.run_id, names))
    assert len(files) == 2 and files[1] == f"{names}/model_card.md"
    report = json.loads(Path(here.download_artifacts(run.info.run_id, files[0])).read_text())
    assert report["paired_test"]["p_value"] < 0.05
    assert (report["decision"], report["by"]) == ("promotion", who())
    assert [rule["name"] for rule in report["rules"]] == [
        "one data set", "as its training recorded", "better than the champion",
        "loaded back from the registry",
    ]  # fmt: skip
    assert all(rule["passed"] for rule in report["rules"])
    card = Path(here.download_artifacts(run.info.run_id, f"{names}/model_card.md")).read_text()
    assert "light on dark" in card and "| optimizer | rmsprop |" in card
    assert "## Over fresh seeds" in card and "trained without the validation images" in card
    assert f"- decision: promotion by {who()}" in card


def test_a_worse_candidate_is_refused_and_the_rule_says_by_how_much(here, capsys):
    before = champion(here)
    assert main(["promote", "weak"]) == 3
    out = capsys.readouterr().out
    assert "REFUSED  better than the champion: accuracy -0." in out
    assert champion(here) == before
    assert len(here.search_model_versions(f"name = '{NAME}'")) == 2


def test_every_verdict_stays(here):
    """weak was refused for its size, then promoted, then refused."""
    run_id = here.get_model_version(NAME, "1").run_id
    files = here.list_artifacts(run_id, f"promotion/{NAME}-version-1")
    reports = [
        json.loads(Path(here.download_artifacts(run_id, file.path)).read_text())
        for file in sorted(files, key=lambda file: file.path)
        if file.path.endswith(".json")
    ]
    assert [report["decision"] for report in reports] == ["refused", "promotion", "refused"]


def test_who_became_champion_meanwhile_is_compared_with(here, capsys, monkeypatch):
    """Another one becomes champion before this one does: the comparison starts again."""
    from tracking.models.registry import Registry

    original, others = Promotion._loaded_back, iter([2])
    registry = Registry(uri())
    # Version 1 is champion for the moment, so that the strong one would win against it.
    set_champion = partial(registry.set_champion, NAME, kind="forced", by="a test", why="a test")
    assert set_champion(1, registry.champion_history(NAME))

    def meanwhile(promotion, candidate, number):
        back = original(promotion, candidate, number)
        for other in others:
            assert set_champion(other, registry.champion_history(NAME))
        return back

    monkeypatch.setattr(Promotion, "_loaded_back", meanwhile)
    before = registry.champion_history(NAME).generation
    assert main(["promote", "strong"]) == 0
    out = capsys.readouterr().out
    assert "the champion changed meanwhile; comparing with the new one" in out
    assert "mlp-digits version 2 is this model, and the champion already" in out
    assert registry.champion_history(NAME).generation == before + 1
    assert champion(here) == 2
    run_id, folder = here.get_model_version(NAME, "2").run_id, f"promotion/{NAME}-version-2"
    *_, last = sorted(
        file.path for file in here.list_artifacts(run_id, folder) if file.path.endswith("json")
    )
    report = json.loads(Path(here.download_artifacts(run_id, last)).read_text())
    assert report["decision"] == "overtaken"


def test_a_version_that_predicts_otherwise_is_never_promoted(here, capsys, monkeypatch):
    from sweeps.promotion.scorer import Scorer

    original = Scorer.score

    def garbled(scorer, model, folder):
        found = original(scorer, model, folder)
        if folder.startswith("registered"):
            found.probabilities[7, 3] += 1e-6
        return found

    monkeypatch.setattr(Scorer, "score", garbled)
    before = champion(here)
    assert main(["promote", "weak", "--force", "whatever it takes"]) == 3
    assert "version 1 predicts 1 of 360 images differently" in capsys.readouterr().out
    assert champion(here) == before


def test_the_champion_of_another_data_set_is_no_match(here, capsys):
    model = ModelStore(uri()).registered(f"{NAME}@champion")
    own = model.tags["sweeps.data_fingerprint"]
    here.set_logged_model_tags(model.model_id, {"sweeps.data_fingerprint": "f" * 64})
    try:
        assert main(["promote", "weak", "--dry-run"]) == 3
        out = " ".join(capsys.readouterr().out.split())
        assert "REFUSED one data set: the champion comes from digits ffffffffffff" in out
    finally:
        here.set_logged_model_tags(model.model_id, {"sweeps.data_fingerprint": own})


def test_an_unfinished_comparison_has_no_winner(here, capsys):
    experiments = [e.experiment_id for e in here.search_experiments()]
    text = "tags.`sweeps.kind` = 'finalists' AND tags.`sweeps.sweep` = 'strong'"
    (final,) = here.search_runs(experiments, text)
    here.update_run(final.info.run_id, status="SCHEDULED")
    try:
        assert main(["promote", "strong"]) == 2
        assert "has no winner yet" in capsys.readouterr().err
    finally:
        here.update_run(final.info.run_id, status="FINISHED")


def test_a_comparison_stays_in_one_store(here, capsys):
    assert main(["finalize", "strong", "--tracking-uri", "sqlite:///other.db"]) == 2
    assert "The sweep is tracked in" in capsys.readouterr().err
    assert not Path("other.db").exists()


def test_a_repeat_changes_nothing(here, capsys):
    history = here.get_registered_model(NAME).tags
    assert main(["promote", "strong"]) == 0
    assert "the champion already" in capsys.readouterr().out
    assert main(["promote", "strong", "--min-accuracy", "0.9999"]) == 3
    out = capsys.readouterr().out
    assert "REFUSED  --min-accuracy: test accuracy" in out
    assert "is this model, and the champion already; it stays that: --min-accuracy" in out
    assert here.get_registered_model(NAME).tags == history
    assert len(here.search_model_versions(f"name = '{NAME}'")) == 2


def test_a_champion_made_by_hand_of_a_foreign_model_is_said_and_can_be_replaced(here, capsys):
    name = "by hand"
    here.create_registered_model(name)
    here.create_model_version(name, "file:///elsewhere/model")
    here.set_registered_model_alias(name, "champion", "1")
    assert main(["promote", "--rollback", "--model", name]) == 2
    assert "version 1 got its alias outside keras-sweeps" in capsys.readouterr().err
    assert main(["promote", "--history", "--model", name]) == 2
    assert "version 1 as champion, set outside keras-sweeps" in capsys.readouterr().err
    assert main(["promote", "weak", "--model", name, "--dry-run"]) == 3
    assert "by hand version 1 cannot be compared with: keras-s" in capsys.readouterr().out
    assert here.get_registered_model(name).aliases == {"champion": 1}
    assert main(["promote", "weak", "--model", name, "--force", "that was a test"]) == 0
    assert "was version 1, forced: that was a test" in capsys.readouterr().out
    assert here.get_registered_model(name).aliases == {"champion": 2}
    here.delete_registered_model(name)


def test_force_is_recorded_and_rolled_back(here, capsys):
    assert main(["promote", "weak", "--force", "the labels were wrong"]) == 0
    assert champion(here) == 1
    assert main(["promote", "--rollback", "they were right"]) == 0
    assert champion(here) == 2
    capsys.readouterr()
    assert main(["promote", "--history"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "mlp-digits: champion is version 2" in out
    for part in ("forced", "rollback", "promotion", who().partition("@")[0]):
        assert part in out
    history = here.get_registered_model(NAME).tags
    forced, last = (
        json.loads(history[key])
        for key in sorted(key for key in history if key.startswith("sweeps.champion."))[-2:]
    )
    assert (last["version"], last["previous"], last["why"]) == (2, 1, "they were right")
    assert "the labels were wrong (refused:" in forced["why"]
    while main(["promote", "--rollback"]) == 0:  # Further and further, to the first one.
        pass
    assert "has no earlier champion" in capsys.readouterr().err
    assert champion(here) == 1
    assert main(["promote", "strong"]) == 0
    assert champion(here) == 2


def test_a_run_can_be_promoted_under_a_name_of_its_own(here, capsys):
    run_id = here.get_model_version(NAME, "2").run_id
    assert main(["promote", run_id, "--model", "my digits"]) == 0
    assert here.get_registered_model("my digits").aliases == {"champion": 1}
    capsys.readouterr()
    assert main(["promote", "--history"]) == 2
    assert "mlp-digits, my digits" in capsys.readouterr().err


def test_a_registered_model_outlives_its_place_in_the_sweep(here):
    """A sweep that goes on drops models that are no longer among the best."""
    from tracking.runs.tracker import MlflowTracker
    from tracking.spool.records import ModelDropRecord

    version = here.get_model_version(NAME, "1")
    model = ModelStore(uri()).registered(f"{NAME}/1")
    answers = [{"key": "trial-0", "id": version.run_id}, {"key": "trial-0/model",
                                                          "id": model.model_id}]  # fmt: skip
    MlflowTracker(uri(), NAME, answers=answers).apply(ModelDropRecord(0))
    assert here.get_logged_model(model.model_id).status == "READY"
    assert main(["doctor", "weak"]) == 0


def test_a_tampered_champion_is_not_loaded(here, capsys):
    model = ModelStore(uri()).registered(f"{NAME}@champion")
    location = here.get_logged_model(model.model_id).artifact_location.removeprefix("file://")
    path = Path(location) / "data" / "model.keras"
    content = path.read_bytes()
    try:
        path.write_bytes(content[:-1] + b"!")
        assert main(["promote", "weak"]) == 2
        assert "was changed after it was logged" in capsys.readouterr().err
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["nothing-of-that-name"], "There is no sweep or run"),
        (["0" * 32], "There is no run"),
        (["it's"], "a sweep's name or a run's id"),
        (["weak", "--history"], "Received: --history, name"),
        (["--history", "--rollback"], "Received: --history, --rollback"),
        (["weak", "--force", " "], "--force must say why"),
        (["weak", "--force", "x", "--dry-run"], "exclude each other"),
        (["weak", "--alpha", "1"], "must be a number above 0 and at most 0.5"),
        (["weak", "--margin", "1"], "must be a number above 0 and below 0.5"),
        (["weak", "--margin", "0.01", "--alpha", "0.01"], "--alpha and --margin exclude"),
        (["weak", "--work-dir", "/proc/x"], "--work-dir must be a folder"),
        (["weak", "--max-latency-ms", "0"], "must be a number above 0"),
        (["weak", "--model", "a/b"], "--model must be"),
        (["weak", "--tracking-uri", "sqlite:///elsewhere.db"], "which does not exist"),
        (["--rollback", "--model", "nothing"], "has no champion"),
        (["--history", "--model", "nothing"], "never had a champion"),
    ],
)
def test_wrong_input_is_one_line_and_changes_nothing(here, capsys, options, text):
    before = dump()
    assert main(["promote", *options]) == 2
    captured = capsys.readouterr()
    assert text in captured.err and captured.err.count("\n") == 1
    assert dump() == before
    assert not Path("elsewhere.db").exists()


def test_going_back_goes_back_further_never_to_and_fro():
    def history(*entries: tuple[str, int]) -> list[ChampionChange]:
        return [ChampionChange(k, version, None, kind, "", "", 0)
                for k, (kind, version) in enumerate(entries, start=1)]  # fmt: skip

    assert version_before([], 1) is None
    assert version_before(history(("promotion", 1)), 1) is None
    two = [("promotion", 1), ("promotion", 2)]
    assert version_before(history(*two), 2) == 1
    assert version_before(history(*two, ("rollback", 1)), 1) is None
    again = [*two, ("forced", 1), ("rollback", 2)]
    assert version_before(history(*again), 2) == 1
    assert version_before(history(*again, ("rollback", 1)), 1) is None
    assert version_before(history(*two, ("rollback", 1), ("promotion", 3)), 3) == 1
    three = history(*two, ("promotion", 3))
    assert version_before(three, 3, lambda version: version != 2) == 1, "2 was deleted"
    assert version_before(three, 9, lambda version: version == 1) == 1, "moved by hand"
    assert version_before(three, 3, lambda version: version == 3) is None
    # An alias that was moved by hand goes back to the last champion that was promoted.
    assert version_before(history(*two), 9) == 2
