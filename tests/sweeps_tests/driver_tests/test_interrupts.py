"""One signal asks for an orderly end, a second for a quick one, a third ends at once."""

from __future__ import annotations

import signal

import pytest

from sweeps.interrupts import Interrupts


@pytest.fixture(autouse=True)
def not_ignored():
    """As in a terminal, also where the tests themselves run under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


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


@pytest.mark.parametrize(
    ("number", "terminated"),
    [(signal.SIGINT, False), (signal.SIGTERM, True), (signal.SIGHUP, True)],
)
def test_ctrl_c_is_told_from_a_termination(number, terminated):
    with Interrupts() as interrupts:
        signal.raise_signal(number)
        assert interrupts.terminated is terminated


def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            signal.raise_signal(signal.SIGHUP)
            assert not interrupts.received
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_outside_of_the_main_thread_no_handler_is_installed():
    import threading

    before, found = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with Interrupts() as interrupts:
            found.append((signal.getsignal(signal.SIGINT), interrupts.received))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(before, False)] and signal.getsignal(signal.SIGINT) is before
