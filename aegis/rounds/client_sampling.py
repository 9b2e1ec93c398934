"""What client-level privacy changes in a turn: whom a round asks, what its answers become, and when that may be kept.

Every act is durable before the next: the round is charged, then its sites are drawn, then they are asked; the model is
computed, then recorded as the one that the charge paid for, then kept. Killed in between, the same is done again.
"""

from __future__ import annotations

from collections.abc import Collection

from aegis.aggregation import Aggregate
from aegis.client_privacy import ClientPrivacy, CohortSample
from aegis.rounds.context import RunContext
from aegis.rounds.round_attempt import RoundAttempt
from aegis.stores.run_state import RunState, SampledCohort
from coreason_enclave.wire.updates import Arrays, layout_of, model_digest

__all__ = ["ClientSampling"]


class ClientSampling:
    """The draws of one run whose job promises client-level privacy."""

    def __init__(self, run: RunContext, privacy: ClientPrivacy) -> None:
        self._run, self._journal, self._privacy = run, run.journal, privacy

    def draw(self, eligible: Collection[str]) -> tuple[tuple[str, ...], SampledCohort]:
        """The sites that the next round asks, charged for; and what a state that names them has to say with them.

        The population is the number of sites that are enrolled when the job first draws. One that enrols later is drawn
        by its own coin like any other; the denominator stays.

        Raises:
            PrivacyBudgetExceededError: the round cannot be afforded.
            InvalidJob: job, federation and ledger contradict each other.
        """
        draw = self._privacy.reserve(self._named(self._next()))
        self._log("reserved", draw, {"population": draw.population})
        kept = SampledCohort(
            round_number=draw.round_number, number=draw.number, population=draw.population, is_open=True
        )
        return self._privacy.draw_sites(draw, eligible), kept

    def combine(self, attempt: RoundAttempt) -> Aggregate:
        """The noised mean of what was admitted; noise alone, where nobody was drawn or nobody answered."""
        updates = [accepted.update for accepted in attempt.admitted.values()]
        return self._privacy.combine(self._open(), updates, layout_of(attempt.base))

    def commit(self, model: Arrays) -> None:
        """Record the round's model, before it is kept.

        Raises:
            ReleasedOtherwise: this draw gave another model before, in a run of this job whose state is not this one.
        """
        draw, digest = self._open(), model_digest(model)
        self._privacy.commit(draw, digest)
        head = self._privacy.ledger.head()
        self._log(
            "committed", draw, {"model": digest, "ledger_head": {"seq": head.seq, "hash": head.hash}, **self._spent()}
        )

    def resample(self, why: str) -> RunState:
        """With the round closed, and to be drawn anew: another draw, other noise, another charge."""
        draw, state = self._open(), self._journal.state
        self._log("drawn anew", draw, {"why": why})
        again = SampledCohort(
            round_number=draw.round_number, number=draw.number + 1, population=draw.population, is_open=False
        )
        return state.closed().model_copy(update={"client_draw": again})

    def _next(self) -> SampledCohort:
        state = self._journal.state
        known = state.client_draw
        if known is not None and known.round_number == state.open_round:
            return known
        population = len(self._run.enrolments()) if known is None else known.population
        return SampledCohort(round_number=state.open_round, number=1, population=population, is_open=False)

    def _open(self) -> CohortSample:
        return self._named(self._next())

    def _named(self, kept: SampledCohort) -> CohortSample:
        return CohortSample(
            job_digest=self._run.job.digest(),
            round_number=kept.round_number,
            number=kept.number,
            base_model_digest=self._journal.state.models[-1],
            population=kept.population,
        )

    def _spent(self) -> dict[str, object]:
        guarantee = self._privacy.guarantee()
        return {} if guarantee is None else {"epsilon": guarantee.epsilon, "delta": guarantee.delta}

    def _log(self, outcome: str, draw: CohortSample, details: dict[str, object]) -> None:
        self._journal.log("client_privacy", outcome, {"round": draw.round_number, "draw": draw.number, **details})
