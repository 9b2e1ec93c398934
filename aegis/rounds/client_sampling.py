"""Client-level privacy within a round: samples the sites to ask, noises the result, and commits the model.

Each step is durable before the next:

1. Charge the round to the ledger.
2. Sample the sites, then ask them.
3. Compute the model.
4. Commit the model to the ledger as the result of the charge.
5. Save the model.

After a crash in between, the coordinator repeats the same steps with the same results.
"""

from __future__ import annotations

from collections.abc import Collection

from aegis.aggregation import Aggregate
from aegis.client_privacy import ClientPrivacy, CohortSample
from aegis.rounds.context import RunContext
from aegis.rounds.round_attempt import RoundAttempt
from aegis.stores import RunState, SampledCohort
from coreason_enclave.wire import Arrays, layout_of, model_digest


class ClientSampling:
    """Cohort sampling for a run whose job promises client-level privacy."""

    def __init__(self, run: RunContext, privacy: ClientPrivacy) -> None:
        self._run, self._journal, self._privacy = run, run.journal, privacy

    def draw(self, eligible: Collection[str]) -> tuple[tuple[str, ...], SampledCohort]:
        """Charge the next round and sample its sites; return the sites and the sampling state to save with them.

        The population is the number of sites enrolled at the job's first draw; the denominator keeps this number. A
        site that enrols later gets its own coin like any other site.

        Raises:
            PrivacyBudgetExceededError: the budget does not cover the round.
            InvalidJob: job, federation and ledger contradict each other.
        """
        draw = self._privacy.reserve(self._named(self._next()))
        self._log("reserved", draw, {"population": draw.population})
        kept = SampledCohort(
            round_number=draw.round_number, number=draw.number, population=draw.population, is_open=True
        )
        return self._privacy.draw_sites(draw, eligible), kept

    def combine(self, attempt: RoundAttempt) -> Aggregate:
        """Return the noised mean of the admitted updates, or noise alone if no site was drawn or no site answered."""
        updates = [accepted.update for accepted in attempt.admitted.values()]
        return self._privacy.combine(self._open(), updates, layout_of(attempt.base))

    def commit(self, model: Arrays) -> None:
        """Commit the round's model to the ledger, before saving the model.

        Raises:
            ReleasedOtherwise: this draw already gave another model, in a run of the job with another state.
        """
        draw, digest = self._open(), model_digest(model)
        self._privacy.commit(draw, digest)
        head = self._privacy.ledger.head()
        self._log(
            "committed", draw, {"model": digest, "ledger_head": {"seq": head.seq, "hash": head.hash}, **self._spent()}
        )

    def resample(self, why: str) -> RunState:
        """Return the state that closes the round and resamples it.

        The resampled round gets a new cohort, new noise and a new charge to the ledger.
        """
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
