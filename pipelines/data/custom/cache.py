"""What was prepared before from a user's own sources: found again, named apart, removed when asked.

Beside the arrays a prepared folder has `source.json`, which knows where they came from.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipelines.data.custom.sources import MAX_NAME, CustomSource, custom_source
from pipelines.data.prepared import META_FILE, SOURCE_FILE, PreparedData
from search_spaces.errors import InputError
from search_spaces.files import UnusableFileError, read_json
from search_spaces.stored_values import as_kind

DIGEST_DIGITS = 6


@dataclass(frozen=True)
class EarlierData:
    """A prepared folder.

    Attributes:
        source: what it was read from last, as `CustomSource.text`.
        owner: what it was read from first, unless that is gone: a copy has the same content, and
            may have another one later.
        signature: of `source` when it was read; empty for a function.
        version: the rules that it was prepared by (`pipelines.data.custom.prepare.FORMAT`).
    """

    folder: Path
    name: str
    fingerprint: str
    source: str
    owner: str
    signature: str
    version: int

    @property
    def num_bytes(self) -> int:
        """What it takes on the disk."""
        return sum(path.stat().st_size for path in self.folder.iterdir())


def earlier_data(root: Path, source: CustomSource) -> list[EarlierData]:
    """What is there of this source, and of others that would have its name; by name."""
    found = []
    for path in sorted(root.glob(f"*/{SOURCE_FILE}")):
        known = _read(path)
        data = known and _read(path.with_name(META_FILE))
        if not known or not data or not {"name", "fingerprint"} <= set(data):
            continue
        text = known.get("source", "")
        values = {
            "folder": path.parent, "name": data["name"], "fingerprint": data["fingerprint"],
            "source": text, "owner": known.get("owner", text),
            "signature": known.get("signature", ""), "version": known.get("format", 1),
        }  # fmt: skip
        try:
            earlier = as_kind(EarlierData, values)
        except UnusableFileError:
            continue
        if earlier.name == source.name or source.text in (text, earlier.owner):
            found.append(earlier)
    return found


def owner_of(data: PreparedData, source: CustomSource, earlier: Iterable[EarlierData]) -> str:
    """Whose content it is: of the source that had it first and is still there, or of this one."""
    for known in earlier:
        same = (known.name, known.fingerprint) == (data.name, data.fingerprint)
        if same and _is_there(known.owner):
            return known.owner
    return source.text


def data_name(source: CustomSource, fingerprint: str, earlier: Iterable[EarlierData]) -> str:
    """The name of a source's data: its own, unless another source that is still there has it.

    It is the name of an experiment and of a model, in which different data must not mix. What
    was moved, or copied, keeps its name: its content is the same, or its old place is empty.
    """
    known = list(earlier)
    for data in known:
        if data.owner == source.text:
            return data.name
    others = [data for data in known if data.name == source.name and _is_there(data.owner)]
    if not others or any(data.fingerprint == fingerprint for data in others):
        return source.name
    digest = hashlib.sha256(source.text.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{source.name[: MAX_NAME - DIGEST_DIGITS - 1]}-{digest[:DIGEST_DIGITS]}"


def superseded(root: Path, source: CustomSource, current: PreparedData) -> list[EarlierData]:
    """What else was prepared from a source: its earlier contents, and with other options."""
    return [
        data
        for data in earlier_data(root, source)
        if data.owner == source.text and data.fingerprint != current.fingerprint
    ]


def remove_unused(
    found: Iterable[EarlierData], work_dir: Path
) -> tuple[list[EarlierData], list[EarlierData]]:
    """Removes prepared folders that no sweep of the work folder names; those removed, those kept.

    Raises:
        InputError: What a sweep says of itself cannot be read, so nobody knows what it needs.
    """
    texts = []
    for path in sorted(work_dir.glob("sweeps/*/sweep.json")):
        try:
            texts.append(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(
                f"--clean must know what every sweep needs. Received: {path}, which cannot be read "
                f"({error}). Repair or remove it; nothing was removed."
            ) from error
    removed: list[EarlierData] = []
    kept: list[EarlierData] = []
    for data in found:
        is_needed = any(data.fingerprint in text for text in texts)
        (kept if is_needed else removed).append(data)
    for data in removed:
        # First what makes it complete: nobody opens it any more while the rest goes.
        (data.folder / META_FILE).unlink(missing_ok=True)
        shutil.rmtree(data.folder)
    return removed, kept


def megabytes(found: Iterable[EarlierData]) -> str:
    """What they take: `12 MB`."""
    return f"{sum(data.num_bytes for data in found) / 1e6:,.0f} MB"


def _is_there(text: str) -> bool:
    """Whether a source is where it was; of a module that cannot be told, so it counts as there."""
    try:
        custom_source(text).check()
    except InputError:
        return False
    return True


def _read(path: Path) -> dict:  # type: ignore[type-arg]
    try:
        body = read_json(path)
    except (FileNotFoundError, UnusableFileError):
        return {}
    return body if isinstance(body, dict) else {}
