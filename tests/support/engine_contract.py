"""What every engine must do, whatever is behind it."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.training.trial import Decision
from search_spaces.errors import InputError
from search_spaces.registry import get_space
from sweeps.engines.base import Engine, Proposal, TrialState


class EngineContract:
    """Subclasses provide `make_engine(**options)`; a grid from the defaults follows no seed."""

    follows_seed = True
    takes_points = True

    def make_engine(self, **options: Any) -> Engine:
        raise NotImplementedError

    def test_proposals_lie_in_the_space(self) -> None:
        engine, space = self.make_engine(), get_space("cnn")
        for _ in range(15):
            proposal = engine.ask()
            assert isinstance(proposal, Proposal)
            assert space.complete(proposal.params) == proposal.params
            engine.tell(proposal.number, TrialState.COMPLETE, 0.5)

    def test_one_seed_gives_the_same_proposals(self) -> None:
        def proposals(seed: int) -> list[dict[str, Any]]:
            engine = self.make_engine(seed=seed)
            points = []
            for number in range(14):
                proposal = engine.ask()
                assert isinstance(proposal, Proposal) and proposal.number == number
                points.append(proposal.params)
                value = float(proposal.params["num_blocks"]) + 0.01 * number
                assert engine.report(number, 1, value) is Decision.GO_ON
                engine.tell(number, TrialState.COMPLETE, value)
            return points

        assert proposals(1) == proposals(1)
        assert (proposals(1) != proposals(2)) is self.follows_seed

    def test_baselines_come_first_under_their_names(self) -> None:
        baselines = get_space("cnn").distinct_baselines()
        engine = self.make_engine(baselines=baselines)
        for names, params in baselines:
            proposal = engine.ask()
            assert isinstance(proposal, Proposal)
            assert proposal.params == params
            assert proposal.baseline == ", ".join(names)
        proposal = engine.ask()
        assert isinstance(proposal, Proposal) and proposal.baseline is None

    def test_a_point_of_a_person_is_next_or_refused(self) -> None:
        engine, space = self.make_engine(), get_space("cnn")
        point = space.complete({"filters": 17, "optimizer": "sgd"})
        try:
            engine.add(point)
        except InputError:
            assert not self.takes_points
            return
        assert self.takes_points
        proposal = engine.ask()
        assert isinstance(proposal, Proposal) and proposal.params == point
        assert proposal.proposed_by == "added" and proposal.baseline is None
        with pytest.raises(InputError, match="is trial 0"):
            engine.add(point)

    def test_it_goes_on_after_trials_that_were_lost(self) -> None:
        engine = self.make_engine()
        for state in (TrialState.FAILED, TrialState.KILLED, TrialState.PRUNED):
            proposal = engine.ask()
            assert isinstance(proposal, Proposal)
            engine.report(proposal.number, 1, 0.3)
            engine.tell(proposal.number, state, None, "a reason")
        assert engine.ask() is not None
