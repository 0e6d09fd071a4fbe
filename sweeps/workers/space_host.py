"""The process that has Keras and a user's space, and asks the driver for every value.

The driver imports neither: it relays each question to whoever samples (Optuna, a dict, chance).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from search_spaces.errors import InputError
from search_spaces.hyperparameters import active_values, declare
from search_spaces.hyperparameters.discovery import MAX_SAMPLES as MAX_LOOKS
from search_spaces.hyperparameters.parameter import Parameter, Params, Value
from search_spaces.space import Shape
from search_spaces.user_spaces.reference import Sources, check_sources
from sweeps.executors.base import Event, Executor, Raised, Reported
from sweeps.workers.jobs import HostTask, Sampled, host_job
from sweeps.workers.query_process import AskedProcess

JOB_ID = "space"
BUILD_SECONDS = 600.0
"""How long a space may build one model before it counts as stuck."""
MAX_SAMPLES = 200
"""Every model that was built leaves something behind in Keras: a new process forgets it."""


class SpaceHost:
    """Samples one user's space in a process of its own, started when it is first needed.

    Args:
        make_executor: what runs the process; its server is the one that trials are forked from.
    """

    def __init__(
        self,
        reference: str,
        input_shape: Shape,
        num_classes: int,
        make_executor: Callable[[], Executor],
    ) -> None:
        self._reference, self._shape, self._num_classes = reference, input_shape, num_classes
        self._process = AskedProcess(JOB_ID, make_executor, BUILD_SECONDS)
        self._is_checked = False
        self._num_samples = 0
        self.notes: tuple[str, ...] = ()
        self.sources: Sources = ()
        self.drops_class_weights = False

    def sample(self, hp: Any) -> Params:
        """The active values of the point that `hp` chooses, as `Space.sample`.

        A space that raises at a point has asked for all that it needs to raise again: the values
        so far are the point, and its trial fails truthfully.

        Raises:
            InputError: The space cannot be used at all.
            SourceChangedError: Its files are not what they were.
        """
        self._make_ready()
        answer: Value | None = None
        while True:
            event = self._heard(partial(self._process.ask, answer))
            if isinstance(event, Raised):  # It died: in the trial's own process it will, too.
                return active_values(hp)
            assert isinstance(event, Reported)
            if isinstance(event.message, Sampled):
                self.note(*event.message.notes)
                return active_values(hp)
            assert isinstance(event.message, Parameter)
            try:
                answer = declare(hp, event.message)
            except BaseException:
                self._process.stop()  # It waits for an answer that does not come.
                raise

    def note(self, *notes: str) -> None:
        """Adds what people should know of the space, once."""
        self.notes = tuple(dict.fromkeys((*self.notes, *notes)))

    def note_limit(self) -> None:
        """Says that the space has more to it than was looked at."""
        self.note(
            f"'{self._reference}' was looked at with {MAX_LOOKS} models, and there is more to it: "
            "parameters that only appear at points not seen are searched and recorded where they "
            "appear, but are not listed and cannot be narrowed"
        )

    def close(self) -> None:
        """Ends the process."""
        self._process.close()

    def _make_ready(self) -> None:
        """Has the process wait for work."""
        self._num_samples += 1
        if self._num_samples % MAX_SAMPLES == 0:
            self._process.stop()
        if not self._process.is_running:
            self._start()

    def _start(self) -> None:
        check_sources(self.sources)
        task = HostTask(self._reference, self._shape, self._num_classes, not self._is_checked)
        event = self._heard(partial(self._process.start, host_job, task))
        if isinstance(event, Raised):
            raise _unusable(self._reference, event)
        assert isinstance(event, Reported) and isinstance(event.message, Sampled)
        if not self._is_checked:
            self.sources = event.message.sources
        self._is_checked = True
        self.note(*event.message.notes)
        self.drops_class_weights |= event.message.drops_class_weights

    def _heard(self, listen: Callable[[], Event]) -> Event:
        try:
            return listen()
        except TimeoutError as error:
            raise InputError(
                f"A space must build a model within {BUILD_SECONDS:g} seconds. Received: "
                f"'{self._reference}', which did not."
            ) from error


def _unusable(reference: str, event: Raised) -> InputError:
    if event.kind == "InputError":
        return InputError(event.reason)
    said = " ".join(event.details.strip().splitlines()[-1:])
    return InputError(
        f"A space must be possible to use. Received: '{reference}', whose process ended: "
        f"{event.reason}{f' ({said})' if said else ''}."
    )
