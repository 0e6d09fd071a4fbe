"""One signal asks for an orderly end, a second for a quick one, a third ends at once."""

from __future__ import annotations

import signal

import pytest

from sweeps.interrupts import Interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_signal_counts(number):
    before = signal.getsignal(number)
    with Interrupts() as interrupts:
        assert not interrupts.received
        signal.raise_signal(number)
        assert interrupts.received and not interrupts.urgent
        signal.raise_signal(number)
        assert interrupts.urgent
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before
