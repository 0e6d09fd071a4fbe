"""What must be the same at the driver and on a node, or numbers and checkpoints would differ.

`found_here` is sent to nodes by value, because a node may not have this project at all: it uses
nothing of this module or project.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

LIBRARIES = {
    "tensorflow": ("tensorflow", "keras", "numpy", "ray"),
    "jax": ("jax", "jaxlib", "keras", "numpy", "ray"),
    "torch": ("torch", "keras", "numpy", "ray"),
}
"""By backend, beside the minor version of Python and the project itself."""
BUILD = re.compile(r"\+(cpu|xpu|cu\d+|rocm[\d.]+)$")
"""The end of PyTorch's versions. Others, such as a commit, mean another source."""
OURS = ("search_spaces", "pipelines", "tracking", "sweeps")


def found_here(libraries: tuple[str, ...], packages: tuple[str, ...]) -> dict[str, str]:
    """Name -> version; of the project's own packages a digest of their text. Empty for missing."""
    import hashlib
    import importlib.metadata
    import importlib.util
    import sys
    from pathlib import Path

    found = {"Python": "{}.{}".format(*sys.version_info[:2])}
    for name in libraries:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = ""
    whole = hashlib.sha256()
    complete = True
    for package in packages:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            complete = False
            break
        folder = Path(spec.origin).parent
        for path in sorted(folder.rglob("*.py")):
            whole.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    found["keras-sweeps"] = whole.hexdigest()[:12] if complete else ""
    return found


def differences(there: Mapping[str, str], here: Mapping[str, str]) -> str:
    """What of a node differs, in one line: `numpy 2.1.0 there, 2.3.1 here`; empty for nothing.

    For which processors a library was built (`2.9.1+cu128`, `2.9.1+cpu`) may differ.
    """
    parts = [
        f"{name} {there.get(name) or 'missing'} there, {version or 'missing'} here"
        for name, version in here.items()
        if BUILD.sub("", there.get(name, "")) != BUILD.sub("", version)
    ]
    return "; ".join(parts)
