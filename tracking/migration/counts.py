"""How much of each kind a store holds."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass
class Counts:
    """What a store holds, or what was added to one."""

    experiments: int = 0
    runs: int = 0
    metric_points: int = 0
    artifacts: int = 0
    logged_models: int = 0
    registered_models: int = 0
    versions: int = 0
    aliases: int = 0

    def text(self) -> str:
        """All of them in one line."""
        parts = [f"{getattr(self, one.name):,} {one.name}" for one in fields(self)]
        return ", ".join(parts).replace("_", " ")
