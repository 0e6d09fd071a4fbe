"""The names of all tags of our own in MLflow (`sweeps.*`); each stands here alone.

And the one value that may be too long for a tag: a model's class names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from search_spaces.errors import InputError, shown
from search_spaces.files import UnusableFileError, parsed_json

MAX_CHARACTERS = 4_000
"""A tag holds 8,000, and a thousand class names are longer."""


class Tag:
    """Names of tags. Those that end in `_PREFIX` begin a name, that in `_SUFFIX` ends one.

    They are what runs, models and versions of every release are found by: a name never changes.
    """

    PREFIX = "sweeps."

    # Which run this is, and whose.
    KIND = "sweeps.kind"
    SWEEP = "sweeps.sweep"
    UID = "sweeps.uid"
    TRIAL = "sweeps.trial"
    RECORD = "sweeps.record"
    STATE = "sweeps.state"
    REASON = "sweeps.reason"
    OBJECTIVE = "sweeps.objective"
    METRIC_NAMES = "sweeps.metric_names"
    STOPPED_BY = "sweeps.stopped_by"
    NOTE = "sweeps.note"
    RUN_NOTE = "mlflow.note.content"  # What MLflow's page of a run shows as its description.
    NOTE_CHECKSUM = "sweeps.note_checksum"

    # What was trained, on what, from which seed.
    SPACE = "sweeps.space"
    SPACE_FINGERPRINT = "sweeps.space_fingerprint"
    SPACE_SOURCE = "sweeps.space_source"
    BASELINE = "sweeps.baseline"
    PROPOSED_BY = "sweeps.proposed_by"
    SEED = "sweeps.seed"
    PARAMS = "sweeps.params"
    DATA = "sweeps.data"
    DATA_FINGERPRINT = "sweeps.data_fingerprint"
    CLASS_NAMES = "sweeps.class_names"
    BACKGROUND = "sweeps.background"
    RESIZE = "sweeps.resize"
    DUPLICATE_OF = "sweeps.duplicate_of"
    ADAPTATIONS = "sweeps.adaptations"

    # With which options, where, and by which code.
    BACKEND = "sweeps.backend"
    PRECISION = "sweeps.precision"
    JIT = "sweeps.jit"
    MEASURED_WEIGHTS = "sweeps.measured_weights"
    PIXELS = "sweeps.pixels"
    DEVICE = "sweeps.device"
    NODE = "sweeps.node"
    GPU_SHARE = "sweeps.gpu_share"
    PACKING = "sweeps.packing"
    TRIALS_PER_GPU = "sweeps.trials_per_gpu"
    GIT_DIRTY = "sweeps.git_dirty"
    PROJECT_COMMIT = "sweeps.project_commit"
    PROJECT_DIRTY = "sweeps.project_dirty"
    COMMIT = "sweeps.commit"
    VERSION_PREFIX = "sweeps.version."

    # What became of it.
    BEST_TRIAL = "sweeps.best_trial"
    BEST_PARAMS = "sweeps.best_params"
    NUM_RETRIES = "sweeps.num_retries"
    RETRY_REASON = "sweeps.retry_reason"
    RETRY_KIND = "sweeps.retry_kind"
    NUM_MOVES = "sweeps.num_moves"
    MOVE_REASON = "sweeps.move_reason"
    LOST_SECONDS = "sweeps.lost_seconds"
    AUDIT_VALUE = "sweeps.audit_value"
    FIGURES = "sweeps.figures"
    TEST_SPLIT_READ = "sweeps.test_split_read"
    NUM_PARAMETERS = "sweeps.num_parameters"

    # Finalists and their winner.
    FINALISTS = "sweeps.finalists"
    FINALIST_OF = "sweeps.finalist_of"
    FINALIST_SEEDS = "sweeps.finalist_seeds"
    NUM_SEEDS = "sweeps.num_seeds"
    LEFT_OUT = "sweeps.left_out"
    WINNER = "sweeps.winner"
    WINNER_TRIAL = "sweeps.winner_trial"
    WINNER_PARAMS = "sweeps.winner_params"
    WINNER_SEEDS = "sweeps.winner_seeds"

    # Models and the registry.
    MODEL_ID = "sweeps.model_id"
    MODEL_NOT_KEPT = "sweeps.model_not_kept"
    MODEL_SHA256 = "sweeps.model_sha256"
    STANDING = "sweeps.standing"
    CHAMPION_CHANGE = "sweeps.succession"  # Its recorded name is older than its constant.
    CHAMPION_PREFIX = "sweeps.champion."
    TEST_ACCURACY = "sweeps.test_accuracy"
    TEST_LOSS = "sweeps.test_loss"
    OVER_SEEDS_SUFFIX = "_over_seeds"

    # Copies in another store.
    ORIGIN = "sweeps.origin"
    COPIED_PREFIX = "sweeps.copied."


def class_name_tags(names: Sequence[str]) -> dict[str, str]:
    """The names as JSON, cut into as many tags as it takes: `TAG`, `TAG.1`, `TAG.2` ..."""
    text = json.dumps(names)
    pieces = [text[k : k + MAX_CHARACTERS] for k in range(0, len(text), MAX_CHARACTERS)]
    return {
        Tag.CLASS_NAMES if k == 0 else f"{Tag.CLASS_NAMES}.{k}": piece
        for k, piece in enumerate(pieces)
    }


def class_names_of(tags: Mapping[str, str]) -> tuple[str, ...]:
    """The names again; empty where they are not known, or somebody edited the tags."""
    pieces, key = [], Tag.CLASS_NAMES
    while key in tags:
        pieces.append(tags[key])
        key = f"{Tag.CLASS_NAMES}.{len(pieces)}"
    try:
        return tuple(str(name) for name in parsed_json("".join(pieces)))
    except (UnusableFileError, TypeError):
        return ()


def trial_number(tags: Mapping[str, str], what: str) -> int:
    """The trial that a run or model of a sweep belongs to.

    Args:
        what: whose tags they are.

    Raises:
        InputError: Somebody edited the tag.
    """
    text = tags.get(Tag.TRIAL, "")
    if re.fullmatch("[0-9]{1,9}", text):
        return int(text)
    raise InputError(
        f"{what} has the tag {Tag.TRIAL} {shown(text)}, which names no trial. Correct it, "
        "in MLflow's interface or by its client."
    )
