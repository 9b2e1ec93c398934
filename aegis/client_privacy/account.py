"""The coordinator's privacy spend on its sites, over all jobs: one lineage in the coordinator's own ledger.

- All sites of the federation form one lineage. Another job, another run folder or one more site opens no new budget.
- A round is charged in full before any site is sampled.
- A round is committed with its model before that model is saved.
- The same draw is charged once, and a commit cannot be replaced. One charge therefore never covers two different
  releases.
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

LINEAGE = "federation/sites"
"""Name of the sites' lineage in a coordinator's ledger."""


def ledger_round(job: FederationJob, draw: CohortSample) -> int:
    """Return the number under which a draw is reserved.

    A first draw has the round's own number. Resampled rounds get numbers beyond the job's last round.
    """
    return draw.round_number + (draw.number - 1) * job.rounds


def round_of(job: FederationJob, number: int) -> int:
    """Return the job's round for a reservation's number."""
    return (number - 1) % job.rounds + 1


@dataclass(frozen=True)
class SiteAccount:
    """One job's account with the sites' lineage.

    Args:
        caps: largest spend on the sites in total and for one job, from ``federation.toml``.
        noise_source: recorded with each round.
    """

    job: FederationJob
    config: ClientPrivacyConfig
    ledger: PrivacyLedger
    caps: LineageCaps
    noise_source: NoiseSource

    def reserve(self, draw: CohortSample) -> Reservation:
        """Charge one draw, durable on return; a repeated call for the same draw charges nothing more.

        Raises:
            PrivacyBudgetExceededError: the job's own cap or the federation's does not cover the draw.
            LedgerConflict: another run of the same job made this draw from another base model.
            InvalidJob: the job or the federation's caps contradict the ledger.
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
        """Record the model that a draw gave; a repeated call with the same model does nothing.

        Raises:
            LedgerConflict: another model was committed for this draw.
        """
        event = PoissonSampledGaussian(self.config.noise_multiplier, self.config.sample_rate, 1)
        self.ledger.commit(reservation.reservation_id, event, model_digest)

    def claim(self) -> JobClaim | None:
        """Return the ledger's record of this job, or None if the job reserved no round."""
        try:
            known = self.job.job_id in self.ledger.lineage_claim(LINEAGE).jobs
        except LedgerError as error:
            if error.reason is Reason.LINEAGE_UNKNOWN:
                return None
            raise
        return self.ledger.job_claim(LINEAGE, self.job.job_id) if known else None

    def guarantee(self) -> ClientGuarantee | None:
        """Return the guarantee for each site over this job's rounds so far, or None before the first round."""
        claim = self.claim()
        guarantee = None if claim is None else claim.guarantee
        return guarantee if isinstance(guarantee, ClientGuarantee) else None

    def _register(self, population: int) -> None:
        """Register the lineage once. Its size stays as first recorded, and its caps are fixed."""
        if not self.config.delta < 1 / population:
            raise InvalidJob(f"client_privacy.delta is {self.config.delta:g}: set it below 1 / {population} (sites)")
        try:
            self.ledger.register(self._registration(self._size_on_record() or population))
        except LedgerConflict as error:
            raise InvalidJob(
                "the client_privacy caps in federation.toml differ from the coordinator's ledger: restore the caps"
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
            raise InvalidJob(f"another job named {self.job.job_id!r} has sampled these sites: choose another job_id")
