"""The table of bad invocations: what a careless or hostile person types, over all commands.

Each has to end with status 2 and one line on standard error, and to leave the folder as it was.
`python bad_invocations.py` counts how they end, each in a process of its own.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hostile_files import (
    ANSWERS,
    ARRAYS,
    CONFIGS,
    DIGITS,
    LONG,
    PASSWORDS,
    RECORDS,
    SWEEP_FILES,
    TABLES,
    make_hostile_files,
    snapshot,
)

RUN = ("run", "--space", "cnn", "--dataset", "digits")
NOBODY = 65_534


@dataclass(frozen=True)
class Bad:
    """One invocation.

    Attributes:
        area: what of it is bad: options, config, passwords, data, models, sweep, spool, stores.
        heavy: whether it imports TensorFlow before it is refused.
        as_nobody: whether it must run as a user who may not read everything.
        variables: what stands in its environment.
    """

    area: str
    words: tuple[str, ...]
    heavy: bool = False
    as_nobody: bool = False
    variables: dict[str, str] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        words = [word if len(word) < 40 else f"{word[:12]}({len(word)})" for word in self.words]
        who = " (as nobody)" if self.as_nobody else ""
        where = "".join(f"{name}={value} " for name, value in self.variables.items())
        return f"{self.area}: {where}{' '.join(words)}{who}".replace("\0", "\\0")


def bad_invocations() -> list[Bad]:
    """The whole table."""
    return [*_numbers(), *_texts(), *_paths(), *_configs(), *_servers(), *_data(), *_predictions(),
            *_sweeps(), *_stores(), *_others()]  # fmt: skip


COUNTS = ("trials", "epochs", "workers", "keep-models", "retries", "reduction-factor", "audit",
          "max-total-epochs", "no-improvement", "finalists", "finalist-seeds", "threads",
          "trials-per-gpu", "early-stopping")  # fmt: skip


def _numbers() -> Iterator[Bad]:
    for name in COUNTS:
        for value in (DIGITS, "٣", "1e3", "", "0x10"):
            yield Bad("options", (*RUN, f"--{name}={value}"))
    for value in ("9" * 5_000, "-5", "²", "1.5", "nan", "\0"):
        yield Bad("options", (*RUN, f"--seed={value}"))
    for value in ("1/0", "1e999999", f"1/{DIGITS}", DIGITS, "٣", "1/٣", "-1/3", "nan", "inf", ""):
        yield Bad("options", (*RUN, f"--min-epochs={value}"))
    for option in ("timeout", "trial-timeout"):
        for value in (DIGITS, "٣m", "inf", "nan", "1e5", "5 m", ""):
            yield Bad("options", (*RUN, f"--{option}={value}"))
    for value in ("val_accuracy>=1e999", f"val_accuracy>={DIGITS}", "val_accuracy>=nan", "",
                  "val_accuracy>=٣", "val_accuracy", "val_accuracy>=99.5"):  # fmt: skip
        yield Bad("options", (*RUN, f"--target={value}"))
    for value in (f"parameters<={DIGITS}", "parameters<=1e999", "parameters<=٣", "parameters", "",
                  "parameters<=0", "parameters>=3"):  # fmt: skip
        yield Bad("options", (*RUN, f"--limit={value}"))
    for value in ("1000000", "100000"):
        yield Bad("options", (*RUN, f"--threads={value}"))
        yield Bad("options", (*RUN, f"--workers={value}"))
    for value in (DIGITS, "٣", "-1", "0,0", "1000000", "", "0,", "¹"):
        yield Bad("options", (*RUN, f"--gpus={value}"))
    for value in ("٣x٣", DIGITS, "0x0", "64x", "64x64x3", "", "100000"):
        yield Bad("options", ("explore", "--dataset", "pictures_text", f"--image-size={value}"))
    for value in ("٣", DIGITS, "-1", "1.5", "", "9" * 5_000):
        yield Bad("options", ("explore", "--dataset", "digits", f"--seed={value}"))
    for value in (DIGITS, "٣", "0", ""):
        yield Bad("options", ("predict", "small.png", "--file", "m.keras", f"--top={value}"))
    for option in ("alpha", "margin", "min-accuracy", "max-recall-drop", "max-latency-ms",
                   "max-parameters", "max-bytes"):  # fmt: skip
        for value in (DIGITS, "nan", "-1", "٣", ""):
            yield Bad("options", ("promote", "good", f"--{option}={value}"))
    for value in (DIGITS, "٣", "-1", "99", ""):
        yield Bad("options", ("show", "good", f"--trial={value}"))
        yield Bad("options", ("stop", "good", f"--trial={value}"))
        yield Bad("options", ("add", "good", f"--like={value}"))
    for value in (DIGITS, "٣", "0"):
        yield Bad("options", ("replay", "0" * 32, f"--epochs={value}"))


def _texts() -> Iterator[Bad]:
    for name in ("space", "dataset", "objective", "sampler", "oracle", "pruner", "engine", "name",
                 "experiment", "work-dir", "tracking-uri", "storage", "result", "config", "notify",
                 "set", "fix", "resize", "color", "broken", "backend", "precision"):  # fmt: skip
        yield Bad("options", (*RUN, f"--{name}="))
    for name in ("name", "experiment", "work-dir", "sampler", "result", "dataset", "space"):
        yield Bad("options", (*RUN, f"--{name}=a\0b"))
    yield Bad("options", (*RUN, "--fix", "optimizer=adam,sgd"))
    yield Bad("options", (*RUN, "--fix", f"filters={DIGITS}"))
    yield Bad("options", (*RUN, "--fix", "filters=٣"))
    yield Bad("options", (*RUN, "--set", f"learning_rate=0..{DIGITS}"))
    yield Bad("options", (*RUN, "--set", "learning_rate=nan..nan"))
    yield Bad("options", (*RUN, "--set", "filters=٣..٩"))
    yield Bad("options", (*RUN, "--name", LONG))
    yield Bad("options", (*RUN, "--name", "."))
    yield Bad("options", (*RUN, "--name", "a\nb"))
    yield Bad("options", (*RUN, "--experiment", "e" * 10_000))
    yield Bad("options", (*RUN, "--objective", f"{LONG}:max"))
    yield Bad("options", (*RUN, "--notify", "'"))
    yield Bad("options", (*RUN, "--notify", f"/{LONG}"))
    yield Bad("options", (*RUN, "--notify", "https://"))
    for text in ("", "\0", "n" * 2_000, "  "):
        yield Bad("options", ("note", "good", text))
    for name in ("", "..", "a/b", LONG, "a\0b", "Good"):
        for command in ("show", "export", "report", "watch", "stop", "sync", "doctor", "open"):
            yield Bad("options", (command, name))
        yield Bad("options", ("delete", name))
        yield Bad("options", ("finalize", name))
        yield Bad("options", ("promote", name))
        yield Bad("options", ("add", name, "--fix", "filters=3"))
        yield Bad("options", ("note", name, "text"))
        yield Bad("options", ("ui", name))
        yield Bad("options", ("compare", name, "good"))
    for run in ("", "' OR 1=1", LONG, "a\0b", "%", "0" * 33):
        yield Bad("options", ("replay", run))
    yield Bad("options", ("completion", "--shell", "fish"))
    yield Bad("options", ("",))
    yield Bad("options", ("a\0b",))
    yield Bad("options", ("open", "good", "--address", ""))


ODD = ("~nosuchuser/x", LONG, f"missing/{LONG}", "file.txt/x", "loop/x", "left", "a\0b",
       "x/" * 3_000 + "x")  # fmt: skip
CLOSED = "closed/inside"


def _paths() -> Iterator[Bad]:
    for path in ODD:
        yield Bad("options", (*RUN, "--work-dir", path))
        if path != "left":  # With an ending it is a new file.
            yield Bad("options", (*RUN, "--result", f"{path}.json"))
            yield Bad("options", ("explore", "--dataset", "digits", "--picture", f"{path}.png"))
        yield Bad("options", (*RUN, "--config", f"{path}.yaml"))
        yield Bad("options", ("run", "--space", f"{path}.py:build", "--dataset", "digits"))
        for ending in (".npz", ".csv", "/", ".py:load"):
            yield Bad("options", ("explore", "--dataset", f"{path}{ending}"))
        yield Bad("options", ("explore", "--dataset", "digits", "--work-dir", path))
        yield Bad("options", ("list", "--work-dir", path))
        yield Bad("options", ("clean", "--work-dir", path))
        yield Bad("options", ("delete", "good", "--work-dir", path))
        yield Bad("options", ("sync", "good", "--work-dir", path))
        yield Bad("options", ("promote", "good", "--work-dir", path))
        yield Bad("options", ("export", "good", "--output", path))
        yield Bad("options", ("report", "good", "--output", path))
        yield Bad("options", ("predict", path, "--file", "model_text.keras"))
        yield Bad("options", ("predict", "small.png", "--file", f"{path}.keras"))
        yield Bad("options", ("replay", "0" * 32, "--work-dir", path))
    for output in ("folder", "fifo", "missing/x", "zero", "file.txt"):
        yield Bad("options", ("export", "good", "--output", output))
        yield Bad("options", ("report", "good", "--output", output))
    for output in ("folder", "fifo", "zero", "loop"):
        yield Bad("options", ("export", "good", "--output", output, "--overwrite"))
        yield Bad("options", ("report", "good", "--output", output, "--overwrite"))
    for result in ("folder", "missing/x.json", "fifo", "zero", "loop"):
        yield Bad("options", (*RUN, "--result", result))
    for words in (
        (*RUN, "--config", f"{CLOSED}.yaml"),
        (*RUN, "--work-dir", "closed/work"),
        (*RUN, "--result", "closed/result.json"),
        ("run", "--space", "closed/space.py:build"),
        ("explore", "--dataset", f"{CLOSED}.csv"),
        ("explore", "--dataset", "closed"),
        ("explore", "--dataset", "digits", "--picture", "closed/new.png"),
        ("list", "--work-dir", "closed/work"),
        ("show", "--work-dir", "closed"),
        ("predict", f"{CLOSED}.png", "--file", "m.keras"),
        ("predict", "small.png", "--file", "closed/m.keras"),
        ("export", "good", "--output", "closed/out.csv"),
        ("report", "good", "--output", "closed/out.html"),
        ("server", "--auth", "--admin-password-file", "closed/password"),
        ("server", "--artifacts-destination", "closed/files"),
    ):
        yield Bad("options", words, as_nobody=True)


def _configs() -> Iterator[Bad]:
    names = [f"config_{name}.yaml" for name in CONFIGS]
    names += ["fifo.yaml", "zero.yaml", "folder.yaml", "loop", "dangling", "/dev/stdin", "/dev/tty"]
    for name in names:
        yield Bad("config", ("run", "--dataset", "digits", "--config", name))


def _servers() -> Iterator[Bad]:
    for value in ("٣", "0", "65536", DIGITS, "-1", "", "9" * 5_000, "5_000"):
        yield Bad("options", ("server", f"--port={value}"))
        yield Bad("options", ("ui", "good", f"--port={value}"))
    for value in ("٣", "0", "65", DIGITS, "", "9" * 5_000):
        yield Bad("options", ("server", f"--workers={value}"))
    for value in ("", "localhost.localdomain", "٣", "300.1.1.1", "a\0b", DIGITS):
        yield Bad("options", ("server", f"--host={value}"))
    for value in ("*", "a b", "a\nb"):
        yield Bad("options", ("server", f"--allowed-hosts={value}"))
        yield Bad("options", ("server", f"--cors-allowed-origins={value}"))
    for value in (
        "",
        "~nosuchuser/x",
        LONG,
        "file.txt/x",
        "loop",
        "a\0b",
        "nosuch://x",
        "file.txt",
    ):
        yield Bad("options", ("server", f"--artifacts-destination={value}"))
    for value in ("", "x", "=x", "admin=x", "a b=x", f"{LONG}=x", "x="):
        yield Bad("options", ("server", "--auth", f"--user={value}"))
    files = [f"{name}.password" for name in PASSWORDS]
    files += ["fifo", "zero", "folder", "loop", LONG, "file.txt/x", "~nosuchuser/x", "missing/x",
              "a\0b"]  # fmt: skip
    for name in files:
        yield Bad("passwords", ("server", "--auth", f"--admin-password-file={name}"))
    for name in ("fifo", "zero", "folder", "large.password", LONG, "nul.password"):
        yield Bad("passwords", ("server", "--auth", f"--user=ann={name}"))


def _data() -> Iterator[Bad]:
    names = [f"table_{name}.csv" for name in TABLES] + [f"arrays_{name}.npz" for name in ARRAYS]
    names += [f"arrays_{name}.npz" for name in ("encrypted", "method", "lzma", "cut", "not_zip",
                                                "empty", "bomb")]  # fmt: skip
    names += [f"pictures_{name}" for name in ("cut", "claims", "bomb", "no_pixels", "text", "script",
                                              "drawing", "empty", "none", "loose", "fifo")]  # fmt: skip
    names += ["fifo.csv", "fifo.npz", "zero.csv", "zero.npz", "folder.csv", "folder.npz", "folder",
              "fifo", "fifo.py:load", "zero", "file.txt", "loop", "dangling", "file.txt:load",
              "nosuchmodule:load", "os..path:load"]  # fmt: skip
    for name in names:
        yield Bad("data", ("explore", "--dataset", name))
    for name in ("encrypted", "method", "nested", "huge"):
        where = {"SWEEPS_DATA_DIR": f"mnist_{name}"}
        yield Bad("data", ("explore", "--dataset", "mnist"), variables=where)
    for name in ("arrays_encrypted.npz", "table_nul.csv", "pictures_bomb", "zero.npz"):
        yield Bad("data", ("run", "--space", "cnn", "--dataset", name))


def _predictions() -> Iterator[Bad]:
    for name in ("fifo.png", "zero.png", "folder.png", "loop", "dangling", "file.txt", "/dev/stdin",
                 *(f"picture_{name}.png" for name in ("cut", "claims", "bomb", "no_pixels", "text",
                                                      "script", "drawing", "empty"))):  # fmt: skip
        yield Bad("data", ("predict", name, "--file", "missing.keras"))
    models = ["nothing", "no_config", "nested", "no_json", "number", "digits", "lambda", "encrypted",
              "method", "cut", "text", "bomb"]  # fmt: skip
    names = [f"model_{name}.keras" for name in models]
    names += ["model_pickle.h5", "fifo.keras", "zero.keras", "folder.keras", "loop", "dangling"]
    for name in names:
        yield Bad("models", ("predict", "small.png", "--file", name))
    for name in ("no_weights", "huge", "huge_input", "huge_layer", "bad_weights"):
        yield Bad("models", ("predict", "small.png", "--file", f"model_{name}.keras"), heavy=True)
    for words in (("--class-names", ""), ("--class-names", "a,,b"), ("--class-names", "a,a")):
        yield Bad("models", ("predict", "small.png", "--file", "m.keras", *words))
    for name in ("", "a b", "x@", "@champion", "x/٣", f"x/{DIGITS}", LONG, "a\0b", "x@' OR 1=1"):
        yield Bad("models", ("predict", "small.png", "--model", name))
        yield Bad("models", ("promote", "--history", "--model", name))


STORES = (
    "nosuch://x", "oracle://host/x", "postgresql+nosuch://host/x", "sqlite+nosuch:///x.db", "://",
    "sqlite", "sqlite:", "ftp://host/x", "http://", "http://[::1", "http://127.0.0.1:1",
    "http://host:port/", "sqlite:///text.db", "sqlite:///header.db", "sqlite:///later.db",
    "sqlite:///later_runs.db", "sqlite:///later_studies.db",
    "sqlite:///new.db?nosuch=1", "sqlite:///:memory:", "sqlite://", "sqlite:///fifo",
    "sqlite:///zero", "sqlite:///folder", "sqlite:///missing/x.db", "sqlite:///loop",
    "sqlite:///file.txt/x.db", f"sqlite:///{LONG}", f"postgresql://127.0.0.1:{DIGITS}/x",
)  # fmt: skip
READ = (("show",), ("export",), ("report",), ("watch", "--once"), ("compare", "good"))
WORK = (("sync",), ("doctor",), ("finalize",), ("delete", "--dry-run"), ("open",))
WRITE = (("run", "--resume", "--name"), ("note", "text"), ("stop",), ("promote",))
SOME = 4


def _some(commands: Sequence[tuple[str, ...]], index: int) -> list[tuple[str, ...]]:
    return [commands[(index * SOME + k) % len(commands)] for k in range(SOME)]


def _named(words: tuple[str, ...], name: str) -> tuple[str, ...]:
    if words[0] == "run":
        return (*words, name)
    return (words[0], name, *words[1:])


def _sweeps() -> Iterator[Bad]:
    names = [f"file-{name}" for name in SWEEP_FILES]
    names += [f"path-{name}" for name in ("fifo", "zero", "folder", "loop")]
    # Each file is given to some commands, and each command gets some of every kind of file.
    for index, name in enumerate(names):
        for words in _some((*READ, *WORK, *WRITE), index):
            yield Bad("sweep", _named(words, name))
    for kind, found in (("record", RECORDS), ("answer", ANSWERS)):
        for index, name in enumerate(found):
            for words in _some((*READ, ("note", "text")), index):
                yield Bad("spool", _named(words, f"{kind}-{name}"))
    for words in READ:
        yield Bad("spool", _named(words, "path-spool_fifo"))


def _stores() -> Iterator[Bad]:
    for uri in STORES:
        yield Bad("stores", (*RUN, f"--storage={uri}"))
        yield Bad("stores", (*RUN, f"--tracking-uri={uri}"))
        yield Bad("stores", ("doctor", "good", f"--storage={uri}"))
        yield Bad("stores", ("replay", "0" * 32, f"--tracking-uri={uri}"))
        yield Bad("stores", ("server", f"--backend-store-uri={uri}"))


def _others() -> Iterator[Bad]:
    yield Bad("options", ("compare", "good"))
    yield Bad("options", ("compare", "good", "good"))
    yield Bad("options", ("run", "--baselines-only", "--set", "filters=3"))
    yield Bad("options", ("export", "good", "--format", "parquet"))
    yield Bad("options", ("promote", "--rollback", ""))
    yield Bad("options", ("promote", "good", "--force", " "))
    yield Bad("options", ("migrate", "--to", ""))


@dataclass(frozen=True)
class Ending:
    """How an invocation ended.

    Attributes:
        status: the exit status; None where something was raised.
        raised: what was raised.
        changed: paths that are new, gone or other than they were.
    """

    status: int | None
    out: str
    err: str
    raised: str = ""
    changed: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """What people call it."""
        if self.raised or "Traceback" in self.err or "Traceback" in self.out:
            return "traceback"
        if self.changed:
            return "wrote something"
        if self.status == 0:
            return "accepted"
        if self.status != 2:
            return f"status {self.status}"
        lines = self.err.splitlines()
        if len(lines) != 1 or not lines[0].startswith("error: "):
            return "not one line"
        return "refused"


def ending_of(bad: Bad, folder: Path, said: Path | None = None) -> Ending:
    """Runs an invocation in this process, in the working folder, which it may not change.

    Args:
        said: a file that has its output at once; None for none.
    """
    from sweeps.cli.main import main

    out, err, raised, status = _Output(said), io.StringIO(), "", None
    before = snapshot(folder)
    kept = {name: os.environ.get(name) for name in bad.variables}
    os.environ.update(bad.variables)
    can_change = bad.as_nobody and os.geteuid() == 0
    try:
        if can_change:
            # What is imported late may lie where nobody may read, as a Python of root's does.
            import sweeps.setup.start  # noqa: F401

            os.seteuid(NOBODY)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(list(bad.words))
    except SystemExit as ended:
        status = int(ended.code or 0)
    except Exception as error:
        raised = f"{type(error).__name__}: {error}"
    finally:
        if can_change:
            os.seteuid(0)
        for name, value in kept.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
    after = snapshot(folder)
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return Ending(status, out.getvalue(), err.getvalue(), raised, tuple(sorted(changed)))


class _Output(io.StringIO):
    """A captured stream that a file follows."""

    def __init__(self, path: Path | None) -> None:
        super().__init__()
        self._path = path

    def write(self, text: str) -> int:
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(text)
        return super().write(text)


SECONDS, BYTES = 8, 12 * 2**30


def _count(wanted: list[str]) -> None:  # pragma: no cover - a script
    """Counts how the table ends; words choose invocations that contain all of them."""
    import mlflow  # noqa: F401 - once, for all processes
    import optuna  # noqa: F401
    import pandas  # noqa: F401

    import sweeps.cli.main  # noqa: F401

    counts: Counter[str] = Counter()
    by_area: dict[str, Counter[str]] = {}
    base = Path(tempfile.mkdtemp(prefix="bad-"))
    base.chmod(0o755)
    folder = _fresh(base)
    for bad in bad_invocations():
        if not all(word in str(bad) for word in wanted):
            continue
        began = time.monotonic()
        kind, shown = _apart(bad, folder, base)
        counts[kind] += 1
        by_area.setdefault(bad.area, Counter())[kind] += 1
        seconds = time.monotonic() - began
        if kind != "refused" or wanted or seconds > 5:
            print(f"{kind:<16} {seconds:4.1f} s  {bad}\n    {shown}", flush=True)
        if kind in ("wrote something", "accepted", "hung", "died"):
            folder = _fresh(base)
    shutil.rmtree(base)
    for area, found in by_area.items():
        print(f"{area:<10} {sum(found.values()):>5}  {dict(found)}")
    print(f"{'in all':<10} {counts.total():>5}  {dict(counts)}")


def _fresh(base: Path) -> Path:
    folder = base / "folder"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o755)
    make_hostile_files(folder)
    os.chdir(folder)
    return folder


def _apart(bad: Bad, folder: Path, base: Path) -> tuple[str, str]:
    """Runs an invocation in a process of its own, with limits; its kind, and what it said."""
    answer, heard = base / "answer.json", base / "said.txt"
    answer.unlink(missing_ok=True)
    heard.unlink(missing_ok=True)
    child = os.fork()
    if not child:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        found = ending_of(bad, folder, heard)
        said = found.raised or found.err or found.out
        last = said.strip().splitlines()[-1:] or [""]
        changed = f" [{', '.join(found.changed[:3])}]" if found.changed else ""
        answer.write_text(json.dumps([found.kind, f"{last[0][:200]}{changed}"]))
        os._exit(0)
    deadline = time.monotonic() + SECONDS * (3 if bad.heavy else 1)
    while time.monotonic() < deadline:
        done, _ = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.005)
    is_late = time.monotonic() >= deadline
    _end_all(base)
    if is_late:
        os.waitpid(child, 0)
        if heard.exists():
            return "accepted", heard.read_text().splitlines()[-1][:100]
        return "hung", ""
    kind, shown = json.loads(answer.read_text()) if answer.exists() else ("died", "")
    return kind, shown


def _end_all(base: Path) -> None:
    """Ends every process that works in the folder: an accepted command starts others."""
    for place in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            if place.readlink().is_relative_to(base) and int(place.parent.name) != os.getpid():
                os.kill(int(place.parent.name), signal.SIGKILL)


if __name__ == "__main__":
    _count(sys.argv[1:])
