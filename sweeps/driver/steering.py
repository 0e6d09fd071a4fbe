"""Carries out what people ask of a sweep while it runs: stop it or a trial, add a point, note."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from search_spaces.errors import InputError
from search_spaces.hyperparameters import GivenHyperParameters, Params, Value
from search_spaces.hyperparameters.narrowing import merged_rules, narrowed
from search_spaces.space import Space
from sweeps.driver.choosing.next_trial import NextTrial
from sweeps.driver.ends import Ends
from sweeps.driver.trials import Trials
from sweeps.engines.base import TrialState
from sweeps.formatting import difference_text
from sweeps.interrupts import Interrupts
from sweeps.state.log import sweep_log
from sweeps.state.requests import Request, pending_requests

_BY_HAND = "stopped by hand at epoch {}"


class Steering:
    """The requests of other processes; `carry_out` is the loop's to call, between two events."""

    def __init__(
        self, trials: Trials, next_trial: NextTrial, ends: Ends, interrupts: Interrupts
    ) -> None:
        self._trials, self._next, self._ends = trials, next_trial, ends
        self._board, self._plan, self._interrupts = trials.board, trials.plan, interrupts
        self._stopping: set[int] = set()
        self._handlers: dict[str, Callable[[Mapping[str, Any]], str]] = {
            "stop": self._stop,
            "stop trial": self._stop_trial,
            "add": self._add,
            "note": self._note,
        }
        for request in pending_requests(self._plan.paths):
            if request.kind in ("stop", "stop trial"):  # They were meant for an earlier session.
                request.path.unlink(missing_ok=True)

    def carry_out(self) -> None:
        """Carries out what is asked, oldest first."""
        for request in pending_requests(self._plan.paths):
            self._answer(request)

    def close(self) -> None:
        """Refuses what came too late for this session; a note is taken still."""
        for request in pending_requests(self._plan.paths):
            if request.kind == "note":
                self._answer(request)
            elif request.kind != "add":
                request.answer(f"{self._plan.paths.name} ends already.", refused=True)

    def _answer(self, request: Request) -> None:
        try:
            if request.kind not in self._handlers:
                raise InputError(f"This version does not know the request '{request.kind}'.")
            text, refused = self._handlers[request.kind](request.body), False
        except InputError as error:
            text, refused = str(error), True
        sweep_log.info("asked to %s: %s", request.kind, text)
        request.answer(text, refused=refused)

    def is_stopped(self, number: int) -> bool:
        """Whether a trial that runs is to end with its report, because somebody asked for it."""
        if number not in self._stopping:
            return False
        row = self._board.rows[number]
        row.reason = _BY_HAND.format(row.epochs_text)
        return True

    def _stop(self, body: Mapping[str, Any]) -> str:
        del body
        self._interrupts.ask_to_end()
        name = self._plan.paths.name
        return f"{name} stops; `keras-sweeps run --resume --name {name}` continues it"

    def _stop_trial(self, body: Mapping[str, Any]) -> str:
        number = int(body["trial"])
        row = self._board.rows.get(number)
        if row is None:
            raise InputError(
                f"There is no trial {number} yet. The next one is {len(self._board.rows)}."
            )
        if row.state.is_end:
            raise InputError(f"Trial {number} has ended already: {row.state.value}.")
        if row.state is TrialState.PAUSED:
            row.reason = _BY_HAND.format(row.epochs_text)
            self._ends.end_one_paused(row)
            return f"trial {number}, which waited at epoch {row.epochs_text}, has ended"
        self._stopping.add(number)
        return f"trial {number} ends with its next report, as pruned"

    def _add(self, body: Mapping[str, Any]) -> str:
        params = self._point(body)
        self._next.add(params)
        point = difference_text(params, self._plan.space.known_points)
        return f"the next point is {point}"

    def _point(self, body: Mapping[str, Any]) -> Params:
        """The point that is asked for: another trial's or the defaults, with some values fixed."""
        like: Params = {}
        if body.get("like") is not None:
            row = self._board.rows.get(int(body["like"]))
            if row is None:
                raise InputError(f"There is no trial {body['like']} whose values could be taken.")
            like = row.params
        return point_with(self._plan.space, like, body["fix"])

    def _note(self, body: Mapping[str, Any]) -> str:
        self._trials.recorder.noted(str(body["text"]))
        return "noted"


def point_with(space: Space, like: Mapping[str, Value], fixed: list[str]) -> Params:
    """A point of a space: `NAME=VALUE` fixed, the rest as in `like`, or as the defaults.

    Raises:
        InputError: A name or a value that the space does not have, or one that is inactive there.
    """
    rules = merged_rules(fixed, "--fix")
    names = [rule.partition("=")[0] for rule in rules]
    given = {name: value for name, value in like.items() if name not in names}
    params = narrowed(space, rules).sample(GivenHyperParameters(given))
    for name in names:
        if name not in params:
            raise InputError(
                f"'{name}' is inactive at this point of space '{space.name}'. Fix what makes it "
                f"active, too: `keras-sweeps run --describe {space.name}` lists the conditions."
            )
    return params
