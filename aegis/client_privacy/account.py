"""What a coordinator has spent on its sites, over all jobs: one lineage of a ledger of its own.

The federation's sites are one lineage, whatever their number: another job, another run folder or one more site opens no
new budget. A round is charged in full before anybody is drawn, and committed with the model that it gave before that
model is kept. The same draw is paid for once, and what is committed cannot be replaced, so one charge never covers two
different releases.
"""

from __future__ import annotations

from dataclasses import dataclass

from aegis.client_privacy.cohort_sampling import CohortSample
from aegis.errors import InvalidJob
from coreason_enclave.accounting import ClientGuarantee, PoissonSampledGaussian
from coreason_enclave.errors import ConfigurationError, JobRejected, LedgerConflict, LedgerError, Reason
from coreason_enclave.ledger import (
    JobClaim,
    LineageCaps,
    LineageRegistration,
    NoiseSource,
    PrivacyLedger,
    Reservation,
    RoundPlan,
)
from coreason_enclave.schemas import ClientPrivacyConfig, FederationJob, NeighboringRelation, PrivacyUnit

__all__ = ["LINEAGE", "SiteAccount", "ledger_round", "round_of"]

LINEAGE = "federation/sites"
"""The name of that lineage in a coordinator's ledger."""


def ledger_round(job: FederationJob, draw: CohortSample) -> int:
    """The number under which a draw is reserved: the round's own; a round drawn anew counts on behind the last one."""
    return draw.round_number + (draw.number - 1) * job.rounds


def round_of(job: FederationJob, number: int) -> int:
    """The job's round that a reservation's number belongs to."""
    return (number - 1) % job.rounds + 1


@dataclass(frozen=True)
class SiteAccount:
    """One job's side of that lineage.

    Args:
        caps: the most that is ever spent on the sites, and that one job may ask for: ``federation.toml``'s.
        noise_source: recorded with each round.
    """

    job: FederationJob
    config: ClientPrivacyConfig
    ledger: PrivacyLedger
    caps: LineageCaps
    noise_source: NoiseSource

    def reserve(self, draw: CohortSample) -> Reservation:
        """Charge one draw, durable when this returns; the same draw again is charged once.

        Raises:
            PrivacyBudgetExceededError: the job's own cap or the federation's does not afford it.
            LedgerConflict: this draw was made from another base model, in another run of the same job.
            InvalidJob: the job or the federation's caps contradict what the ledger holds.
        """
        self._register(draw.population)
        plan = RoundPlan(
            job_id=self.job.job_id,
            job_digest=self.job.digest(),
            round_number=ledger_round(self.job, draw),
            unit=PrivacyUnit.CLIENT,
            noise_multiplier=self.config.noise_multiplier,
            sample_rate=self.config.sample_rate,
            steps=1,
            total_steps=self.job.rounds,
            target_epsilon=self.config.target_epsilon,
            delta=self.config.delta,
            noise_source=self.noise_source,
        )
        self._require_own_job()
        try:
            return self.ledger.reserve(LINEAGE, plan, draw.binding(), require_all=True)
        except JobRejected as error:
            raise InvalidJob(f"client_privacy: {error}") from error

    def commit(self, reservation: Reservation, model_digest: str) -> None:
        """Record which model a draw gave; the same again does nothing.

        Raises:
            LedgerConflict: another model was committed for this draw.
        """
        event = PoissonSampledGaussian(self.config.noise_multiplier, self.config.sample_rate, 1)
        self.ledger.commit(reservation.reservation_id, event, model_digest)

    def claim(self) -> JobClaim | None:
        """What the ledger holds of this job; None where it reserved nothing."""
        try:
            known = self.job.job_id in self.ledger.lineage_claim(LINEAGE).jobs
        except LedgerError as error:
            if error.reason is Reason.LINEAGE_UNKNOWN:
                return None
            raise
        return self.ledger.job_claim(LINEAGE, self.job.job_id) if known else None

    def guarantee(self) -> ClientGuarantee | None:
        """What holds for each site over this job's rounds so far; None before the first."""
        claim = self.claim()
        guarantee = None if claim is None else claim.guarantee
        return guarantee if isinstance(guarantee, ClientGuarantee) else None

    def _register(self, population: int) -> None:
        """Name the lineage, once; its size is what it was then, and its caps are fixed."""
        if not self.config.delta < 1 / population:
            raise InvalidJob(
                f"client_privacy.delta must be below 1 / {population}, the number of enrolled sites, "
                f"got {self.config.delta:g}"
            )
        try:
            self.ledger.register(self._registration(self._size_on_record() or population))
        except LedgerConflict as error:
            raise InvalidJob(
                "federation.toml has other client_privacy caps than the coordinator's ledger, where they are fixed: "
                "restore them"
            ) from error
        except ConfigurationError as error:
            raise InvalidJob(f"federation.toml, client_privacy: {error}") from error

    def _registration(self, size: int) -> LineageRegistration:
        return LineageRegistration.with_best_order(
            lineage=LINEAGE,
            unit=PrivacyUnit.CLIENT,
            neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
            nominal_units=size,
            public=False,
            caps=self.caps,
        )

    def _size_on_record(self) -> int | None:
        try:
            return self.ledger.registration(LINEAGE).nominal_units
        except LedgerError as error:
            if error.reason is Reason.LINEAGE_UNKNOWN:
                return None
            raise

    def _require_own_job(self) -> None:
        claim = self.claim()
        if claim is not None and claim.job_digest != self.job.digest():
            raise InvalidJob(
                f"another job named {self.job.job_id!r} has drawn these sites before: choose another job_id"
            )
