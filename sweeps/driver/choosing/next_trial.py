"""Which trial is next: one that waits, one that the engine promotes, or a new one."""

from __future__ import annotations

import json

from search_spaces.errors import InputError
from search_spaces.hyperparameters import Params
from sweeps.driver.board.row import TrialRow
from sweeps.driver.choosing.time_plan import TimePlan
from sweeps.driver.plan import trial_seed
from sweeps.driver.trials import Trials
from sweeps.engines.base import PastTrial, Proposal, TrialState, Wait

MAX_UNTRAINED = 100
"""So many proposals in a row that need no training, because they repeat or break a limit, mean that
the sampler has nothing new."""


class NextTrial:
    """Chooses the trial for a free slot, and takes over those of earlier sessions."""

    def __init__(self, trials: Trials, time_plan: TimePlan) -> None:
        self._time_plan = time_plan
        self._trials, self._plan, self._board = trials, trials.plan, trials.board
        self._engine, self._recorder = trials.engine, trials.recorder
        self.exhausted = False
        """Whether the engine has no further proposal."""

    @property
    def is_done(self) -> bool:
        """Whether nothing waits and nothing new is to come."""
        rows = self._board.rows
        waits = rows.waiting() or rows.num_in(TrialState.PAUSED)
        return not waits and (self.exhausted or self._all_proposed())

    def choose(self) -> TrialRow | None:
        """The trial to start now; None where there is none, or no room, for the time being."""
        slots = self._trials.packer.slots
        waiting = [row for row in self._board.rows.waiting() if not row.in_doubt]
        others = [row for row in waiting if not row.ran_out_of_memory]
        # One whose memory ran out has a machine to itself, after what else waits.
        slots.empty_one(bool(waiting) and not others)
        if waiting and not others and slots.has_room_alone:
            slots.empty_one(False)
            return waiting[0]
        if not slots.has_room:
            return None
        row = next(filter(self._has_place, others), None) or self._further()
        if row is not None and not self._has_place(row):
            # Promoted, while no machine is idle, or free but those on which it failed.
            row.waiting, row.state = True, TrialState.RUNNING
            return self.choose()
        return row

    def _has_place(self, row: TrialRow) -> bool:
        """Whether a slot is free that `Trials.slot_for` would take for this one."""
        slots, pool = self._trials.packer.slots, self._plan.pool
        if row.ran_out_of_memory:
            return slots.has_room_alone
        if pool is not None and row.failed_on:
            return pool.has_room_beyond(row.failed_on)
        return slots.has_room

    def _further(self) -> TrialRow | None:
        """One that is promoted, or a new one."""
        if not self._time_plan.enters_final_phase():
            row = self._next_of_engine()
            if row is not None or not (self.exhausted or self._all_proposed()):
                return row
            self._time_plan.no_more_points()
        return self._last_promotion()

    def add(self, params: Params) -> None:
        """Has a point of somebody's own tried next.

        Raises:
            InputError: No new point is tried any more, or the engine takes none.
        """
        if self._time_plan.in_final_phase:
            raise InputError(
                "No new points are tried now, because the best are trained in full. Add the point "
                "when the sweep says that there is time left, or resume it with a longer --timeout."
            )
        if self._all_proposed():
            raise InputError(
                f"All {self._plan.num_trials} trials have been proposed. Resume the sweep with "
                "more --trials, and add the point then."
            )
        self._engine.add(params)
        self.exhausted = False

    def _next_of_engine(self) -> TrialRow | None:
        """A trial that the engine promotes, or a new one."""
        running = self._board.running()
        untrained = 0
        while True:
            last = self.exhausted or self._all_proposed()
            number = self._engine.next_promotion(no_more_trials=last and not running)
            if number is not None:
                return self._board.rows[number]
            proposal = None if last else self._engine.ask()
            if last or isinstance(proposal, Wait):
                return None
            if proposal is None:
                self.exhausted = True
                continue
            row = self._new_row(proposal)
            untrained += 1
            if untrained == MAX_UNTRAINED or self._all_points_known():
                self.exhausted = True
            if proposal.breaks_limit:
                self._refuse(row, proposal.breaks_limit)
            elif proposal.duplicate_of is None or not self._repeat(row, proposal.duplicate_of):
                return row

    def _last_promotion(self) -> TrialRow | None:
        """The next of those that are trained on before the sweep ends."""
        row = self._time_plan.next_waiting()
        if row is not None:
            self._engine.resume(row.number)
        return row

    def _all_proposed(self) -> bool:
        limit = self._plan.num_trials
        return limit is not None and self._board.num_proposed() >= limit

    def _all_points_known(self) -> bool:
        """Whether every point of a finite space has a trial that need not be repeated."""
        most = self._plan.space.most_points
        if self._board.counts_untrained or most is None or most > len(self._board.rows):
            return False
        lost = (TrialState.FAILED, TrialState.KILLED)
        known = [row.params for row in self._board.rows.values() if row.state not in lost]
        names = {parameter.name for parameter in self._plan.space.parameters}
        if any(params.keys() - names for params in known):
            return False  # A space of plain Python can have more than its looks have shown.
        return len({json.dumps(params, sort_keys=True) for params in known}) >= most

    def take_over(self, past: PastTrial) -> TrialRow:
        """A row for a trial of an earlier session: ended, waiting at its rung, or to go on."""
        row = self._new_row(past)
        row.value, row.state, row.reason = past.value, past.state, past.reason
        row.best_epoch = past.facts.get("best_epoch")
        row.num_parameters = past.facts.get("num_parameters")
        row.duplicate_of = past.facts.get("duplicate_of")
        row.seconds = past.facts.get("seconds", row.seconds)
        row.measured = dict(past.measured)
        row.breaks_limit = past.facts.get("breaks_limit", "")
        if past.state.is_end:
            row.end_order = self._board.num_ended() - 1
        row.past = past.state.is_end
        row.waiting = past.state is TrialState.RUNNING
        if past.breaks_limit and row.waiting:
            self._refuse(row, past.breaks_limit)
        elif past.duplicate_of is not None and row.waiting:
            self._repeat(row, past.duplicate_of)
        return row

    def _new_row(self, proposal: Proposal | PastTrial) -> TrialRow:
        number, plan = proposal.number, proposal.plan
        baseline = (proposal.baseline or "").partition(",")[0]
        default = f"trial {number} ({baseline})" if baseline else f"trial {number}"
        row = TrialRow(
            number,
            proposal.name or default,
            proposal.params,
            plan.seed if plan else trial_seed(self._plan.seed, number),
            schedule=plan.schedule if plan else self._plan.schedule,
            space=plan.space if plan else self._plan.space,
            baseline=proposal.baseline,
            proposed_by=proposal.proposed_by,
            curve=dict(proposal.curve),
            waiting=True,
        )
        row.seconds = self._recorder.trained_seconds(number)
        self._time_plan.paces.known_before(number, *self._recorder.pace(number))
        moves = self._recorder.moves(number)
        row.num_moved, row.moved_in_a_row = moves.total, moves.in_a_row
        row.lost_seconds = moves.lost_seconds
        # From here on the trial has an end, whatever happens: row, study and run know it.
        self._board.rows[number] = row
        self._recorder.trial_started(row)
        return row

    def _refuse(self, row: TrialRow, reason: str) -> None:
        """Ends a trial that breaks a limit, without training.

        PRUNED, for it is a judgement and no accident: samplers count a pruned trial without values
        among the worst points, and leave failed ones out.
        """
        row.waiting, row.reason, row.breaks_limit = False, reason, reason
        self._trials.end_without_result(row, TrialState.PRUNED)

    def _repeat(self, row: TrialRow, number: int) -> bool:
        """Ends a trial whose point was trained before with that trial's result.

        As Optuna's documentation advises for duplicated samples.

        Returns:
            False where the earlier trial failed, so that training it again is worth while.
        """
        first = self._board.rows.get(number)
        if first is None or first.state in (TrialState.FAILED, TrialState.KILLED):
            return False
        # The result of one that still runs is not known: then the repetition has none.
        state = first.state if first.state.is_end else TrialState.PRUNED
        row.waiting, row.duplicate_of = False, number
        row.reason = f"the same point as trial {number}"
        row.best_epoch, row.num_parameters = first.best_epoch, first.num_parameters
        self._recorder.trial_lost(row, state)
        self._trials.end(row, state, first.value)
        return True
