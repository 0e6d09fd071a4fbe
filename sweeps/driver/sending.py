"""The end of a session's sending: what can arrive arrives, and what cannot is said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sweeps.formatting import count
from sweeps.interrupts import Interrupts
from tracking.addresses import scrubbed

if TYPE_CHECKING:
    from tracking.spool.sender import Sender
    from tracking.spool.spool import Spool

DRAIN_SECONDS = 60.0


def send_rest(
    sender: Sender | None, spool: Spool, name: str, uri: str, interrupts: Interrupts
) -> list[str]:
    """Waits for what is being sent; one line per problem. Nothing is lost: it stays in the spool.

    Args:
        sender: None where nothing is to be sent now.
        name: the sweep that `sync` knows.
        uri: the tracking store, which must not show its password.
    """
    problems = []
    if sender is not None:
        sent = sender.drain(DRAIN_SECONDS, lambda: interrupts.urgent)
        sender.close()
        if not sent:
            why = scrubbed(sender.problem, uri) or "too slow"
            problems.append(
                f"{count(spool.num_waiting, 'record')} not sent to MLflow yet ({why}); nothing is "
                f"lost, `keras-sweeps sync {name}` sends them."
            )
    return problems + [
        f"not recorded in MLflow: {scrubbed(line, uri)}" for line in spool.rejections()
    ]
