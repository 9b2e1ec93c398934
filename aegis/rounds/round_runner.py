"""Runs one round: completes it, or pauses the run with the reason. Each step is on disk before the next."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aegis.aggregation import Aggregate, aggregate
from aegis.client_privacy import ReleasedOtherwise
from aegis.coordination import (
    NextAct,
    QuarantineRecord,
    can_never_suffice,
    choose_cohort,
    decide,
    epsilon_so_far,
    may_open,
    remove_strike,
    select_eligible,
    steps_so_far,
)
from aegis.errors import BudgetRefused, RunPaused, RunRefused, TooFewUpdates
from aegis.rounds.client_sampling import ClientSampling
from aegis.rounds.context import RunContext
from aegis.rounds.dispatcher import Dispatcher
from aegis.rounds.enrolment import invite
from aegis.rounds.round_attempt import RoundAttempt
from aegis.rounds.server_step import ServerStep
from aegis.stores import RoundRecord, RunState, SampledCohort
from coreason_enclave.errors import PrivacyBudgetExceededError, Reason
from coreason_enclave.wire import Array, Arrays, layout_of


@dataclass(frozen=True)
class RoundHooks:
    """What a caller adds to each completed round.

    Attributes:
        evaluate: returns the utility of a model on **public** data; sites never report metrics.
        observe: called with each completed round.
    """

    evaluate: Callable[[Arrays], Mapping[str, float]] = lambda _: {}
    observe: Callable[[RoundRecord], None] = lambda _: None


class RoundRunner:
    """Runs the rounds of ``run``, and continues an interrupted round."""

    def __init__(self, run: RunContext, hooks: RoundHooks) -> None:
        self._run, self._journal, self._hooks = run, run.journal, hooks
        self._sampling = None if run.client_privacy is None else ClientSampling(run, run.client_privacy)
        self._started = time.monotonic()

    def run_round(self, dispatcher: Dispatcher) -> RunState:
        """Run the open round, or else the next round, to its end.

        Raises:
            RunPaused: too few sites can be asked, or two attempts admitted too few updates.
        """
        self._started = time.monotonic()
        while True:
            self.open(dispatcher)
            attempt = RoundAttempt(self._run)
            attempt.run(dispatcher)
            if (following := self.settle(attempt)) is not None:
                return following

    def open(self, dispatcher: Dispatcher) -> None:
        """Invite sites that have not enrolled, then choose the sites of the round. Do nothing if a round is open.

        Raises:
            RunPaused: too few sites can be asked.
        """
        state = self._journal.state
        if state.is_open:
            return
        declined = invite(self._run, dispatcher)
        state, sites = self._journal.state, self._run.sites
        eligibility = select_eligible(
            sites.registered,
            enrolled=self._run.enrolments(),
            declined=declined,
            revoked=sites.revoked(),
            quarantine=state.quarantine,
            rounds_ended=state.rounds_ended,
            health=sites.health(),
        )
        cohort = choose_cohort(eligibility.eligible, self._run.job, state.open_round)
        decision = may_open(self._run.job, cohort, eligibility.left_out, state.quarantine, state.rounds_ended)
        if decision.act is NextAct.PAUSE:
            raise self._pause(decision.why, eligibility.left_out)
        cohort, draw = self._sampled(cohort)
        self._journal.save(nonces=_fresh(cohort), left_out=dict(eligibility.left_out), client_draw=draw)
        self._log_opened()

    def settle(self, attempt: RoundAttempt) -> RunState | None:
        """Complete the round with the admitted updates, or return None after opening the round again.

        Raises:
            RunPaused: too few updates were admitted, for the second time.
        """
        if self._sampling is not None:
            return self._settle_sample(attempt, self._sampling)
        job, state = self._run.job, self._journal.state
        refused = {**state.left_out, **attempt.refused}
        decision = decide(job, admitted=len(attempt.admitted), refused=refused, attempt=state.attempt)
        if decision.act is NextAct.AGGREGATE:
            try:
                return self._complete(attempt, self._combine(attempt))
            except TooFewUpdates as error:  # screening inside the aggregator set further updates aside
                refused |= error.quarantined
                self._set_aside(error.quarantined)
                decision = decide(job, admitted=error.admitted, refused=refused, attempt=state.attempt)
        if decision.act is NextAct.PAUSE:
            raise self._pause(decision.why, refused, attempt)
        self.repeat(decision.why)
        return None

    def _sampled(self, candidates: tuple[str, ...]) -> tuple[tuple[str, ...], SampledCohort | None]:
        """Return the sites to ask: all candidates or, under client-level privacy, the sampled candidates."""
        if self._sampling is None:
            return candidates, None
        try:
            return self._sampling.draw(candidates)
        except PrivacyBudgetExceededError as error:
            raise self._pause(str(error), {}, error=BudgetRefused) from error

    def _settle_sample(self, attempt: RoundAttempt, sampling: ClientSampling) -> RunState | None:
        """Complete the round with any number of admitted updates; on a conflicting release, resample and return None.

        A second attempt would be another release. A longer wait would reveal how many sites were drawn.
        """
        try:
            return self._complete(attempt, sampling.combine(attempt))
        except ReleasedOtherwise as error:
            before = self._journal.state
            self._journal.save(sampling.resample(str(error)))
            self._forget(before)
            return None

    def repeat(self, why: str) -> None:
        """Open the same round again for the same sites, with fresh nonces."""
        state = self._journal.state
        self._journal.log("round", NextAct.REPEAT.value, {"round": state.open_round, "why": why})
        self._journal.save(state.repeated(_fresh(state.nonces)))
        self._forget(state)
        self._log_opened()

    def _pause(
        self,
        why: str,
        reasons: Mapping[str, str],
        attempt: RoundAttempt | None = None,
        error: type[RunPaused] | None = None,
    ) -> RunPaused:
        """Close the round, and return the error to raise: ``error``, or the type that the reasons by site call for."""
        state = self._journal.state
        self._journal.log(
            "round", NextAct.PAUSE.value, {"round": state.open_round, "rounds_ended": state.rounds_ended, "why": why}
        )
        quarantine = state.quarantine if attempt is None else self._forgiven(attempt)
        self._journal.save(state.closed(), quarantine=quarantine)
        self._forget(state)
        self._record_health()
        kind = error or self._kind_of_pause(reasons)
        paused = kind(f"round {state.open_round} cannot be completed: {why}")
        paused.reasons = dict(reasons)
        return paused

    def _kind_of_pause(self, reasons: Mapping[str, str]) -> type[RunPaused]:
        if set(reasons.values()) == {Reason.BUDGET_EXCEEDED.value}:
            return BudgetRefused
        is_final = can_never_suffice(self._run.job, self._run.sites.registered, reasons)
        return RunRefused if is_final else RunPaused

    def _combine(self, attempt: RoundAttempt) -> Aggregate:
        job = self._run.job
        return aggregate(
            [accepted.update for accepted in attempt.admitted.values()],
            rule=job.aggregator,
            num_byzantine=job.num_byzantine,
            layout=layout_of(attempt.base),
            max_norm=job.max_update_norm,
            weight_cap=job.num_examples_cap,
        )

    def _complete(self, attempt: RoundAttempt, combined: Aggregate) -> RunState:
        """Save the model, then the state that names it. The round exists from that save on."""
        counted = {
            site: accepted.update.arrays
            for site, accepted in attempt.admitted.items()
            if site not in combined.quarantined
        }
        model, strategy = ServerStep(self._run, attempt.base, counted, combined.delta).apply()
        if self._sampling is not None:
            self._sampling.commit(model)
        digest = self._journal.store.save_model(model)
        aside = {site: str(reason) for site, reason in combined.quarantined.items()}
        self._set_aside(aside)
        before = self._journal.state
        models = (*before.models, digest)
        record = self._record(attempt, combined, models)
        following = self._journal.save(
            before.closed(),
            models=models,
            history=(*before.history, record),
            quarantine=self._forgiven(attempt),
            strategy=strategy,
        )
        if self._sampling is not None:
            self._forget(before)  # client-level privacy: no reader of this folder may see a single site's update
        self._journal.store.keep_strategy(strategy.digests())
        completed = {"round": record.round_number, "model": digest, "record": record.model_dump(mode="json")}
        self._journal.log("round", "completed", completed)
        self._record_health()
        self._hooks.observe(record)
        return following

    def _record(self, attempt: RoundAttempt, combined: Aggregate, models: tuple[str, ...]) -> RoundRecord:
        state, job, admitted = self._journal.state, self._run.job, dict(sorted(attempt.admitted.items()))
        before = state.history[-1].steps if state.history else {}
        steps = steps_so_far(before, {site: each.update.event for site, each in admitted.items()})
        aside = {site: str(reason) for site, reason in combined.quarantined.items()}
        tail = models[1:][-job.average_last_rounds :]
        return RoundRecord(
            round_number=state.open_round,
            enrolled=tuple(sorted(self._run.enrolments())),
            admitted=tuple(admitted),
            envelopes={site: state.received[site].envelope for site in admitted},
            refused=dict(sorted({**state.left_out, **attempt.refused, **aside}.items())),
            used=combined.used,
            provenance={site: accepted.update.provenance for site, accepted in admitted.items()},
            steps=steps,
            epsilon=epsilon_so_far(job, steps),
            content_changed=tuple(site for site, each in admitted.items() if each.statement.content_changed),
            model_digest=models[-1],
            metrics=dict(self._hooks.evaluate(average([self._journal.store.load_model(each) for each in tail]))),
            seconds=round(time.monotonic() - self._started, 3),
        )

    def _set_aside(self, quarantined: Mapping[str, str]) -> None:
        """Record a strike for each site whose update the aggregator's screening set aside."""
        if quarantined:
            strikes = {site: str(reason) for site, reason in quarantined.items()}
            self._journal.save(**self._journal.struck(strikes, self._run.sites.activations()))

    def _forgiven(self, attempt: RoundAttempt) -> dict[str, QuarantineRecord]:
        """Return the records after this round: one strike less for each admitted site without a new strike."""
        state = self._journal.state
        behaved = attempt.admitted.keys() - set(state.struck)
        records = {
            site: remove_strike(quarantine, state.rounds_ended) if site in behaved else quarantine
            for site, quarantine in state.quarantine.items()
        }
        return {site: quarantine for site, quarantine in records.items() if quarantine is not None}

    def _forget(self, state: RunState) -> None:
        """Delete the arrays of the updates in ``state``; keep the envelopes for signature checks."""
        for kept in state.received.values():
            self._journal.store.drop_arrays(kept.envelope)

    def _record_health(self) -> None:
        """Write the known health of the sites to the log, and to the run folder for status displays."""
        health = {site: seen.to_dict() for site, seen in sorted(self._run.sites.health().items())}
        if health:
            self._journal.log("health", "noted", {"sites": health})
            self._journal.store.save_health({"noted_at": int(self._run.clock()), "sites": health})

    def _log_opened(self) -> None:
        state = self._journal.state
        self._journal.log("round", "opened", {"round": state.open_round, "attempt": state.attempt})


def average(models: Sequence[Arrays]) -> dict[str, Array]:
    """Return the coordinate-wise mean of models of one layout, accumulated in float64.

    Averaging is post-processing and costs no privacy.
    """
    return {
        name: np.mean([model[name].astype(np.float64) for model in models], axis=0).astype(np.float32)
        for name in models[0]
    }


def _fresh(sites: Collection[str]) -> dict[str, str]:
    """Return a single-use nonce for each site."""
    return {site: secrets.token_hex(32) for site in sites}
