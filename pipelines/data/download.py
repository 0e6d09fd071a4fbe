"""Downloads one file, checked and atomically, with a short connection time-out."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0

Progress = Callable[[str, int, int | None], None]
"""Called with the file's name, bytes so far and bytes in all (None when not announced)."""


class DownloadError(OSError):
    """The file could not be had: no network, a refusal, a time-out, or other content."""


def download(
    url: str,
    target: Path,
    progress: Progress,
    checksum: tuple[str, str] | None = None,
    check: Callable[[Path], object] = lambda path: None,
) -> Path:
    """Fetches `url` into `target` and returns it. An existing `target` is never touched.

    Args:
        checksum: algorithm and hexadecimal digest of the file, where one is published.
        check: raises ValueError where the content is wrong (a login page, say); called before the
            file gets its name, so that a cache is never poisoned.

    Raises:
        DownloadError: No connection within five seconds, an HTTP error, or a wrong checksum.
    """
    import requests

    if target.exists():
        return target
    _resolve(url)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    digest = hashlib.new(checksum[0]) if checksum else None
    try:
        with requests.get(url, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS)) as response:
            response.raise_for_status()
            total = int(response.headers.get("Content-Length", 0)) or None
            done = 0
            with partial.open("wb") as file:
                for chunk in response.iter_content(1 << 18):
                    file.write(chunk)
                    done += len(chunk)
                    if digest:
                        digest.update(chunk)
                    progress(target.name, done, total)
        if digest and checksum and digest.hexdigest() != checksum[1]:
            raise DownloadError(f"{url} has other content than published ({checksum[0]} differs)")
        if total and done != total:
            raise DownloadError(f"{url} broke off after {done:,} of {total:,} bytes")
        check(partial)
        partial.replace(target)
    except ValueError as error:
        raise DownloadError(f"{url} has other content than expected: {error}") from error
    except requests.RequestException as error:
        raise DownloadError(f"{urlsplit(url).hostname}: {_reason(error)}") from error
    finally:
        partial.unlink(missing_ok=True)
    return target


def print_progress(name: str, done: int, total: int | None) -> None:
    """Prints how a download stands: in place on a terminal, else a line when it is complete."""
    text = f"downloading {name}: {done / 1e6:.1f} MB" + (f" of {total / 1e6:.1f}" if total else "")
    if sys.stderr.isatty():
        print(f"\r{text}", end="\n" if done == total else "", file=sys.stderr, flush=True)
    elif done == total:
        print(text, file=sys.stderr, flush=True)


def _resolve(url: str) -> None:
    """Fails within the time-out where the name cannot be resolved (a connection's own does not)."""
    parts = urlsplit(url)
    found: list[object] = []

    def look_up() -> None:
        try:
            found.append(socket.getaddrinfo(parts.hostname, parts.port or 443))
        except OSError as error:
            found.append(error)

    if os.environ.get("https_proxy") or os.environ.get("HTTPS_PROXY"):
        return  # The proxy resolves.
    thread = threading.Thread(target=look_up, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    if not found:
        raise DownloadError(f"{parts.hostname}: no answer within {CONNECT_SECONDS:g} seconds")
    if isinstance(found[0], OSError):
        raise DownloadError(f"{parts.hostname}: {found[0].strerror or found[0]}")


def _reason(error: Exception) -> str:
    text = type(error).__name__
    return f"{text} ({error})" if len(str(error)) < 80 else text
