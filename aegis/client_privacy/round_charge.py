"""One job's client-level privacy, round by round: reserve, draw, combine, commit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from aegis.aggregation import Aggregate, Layout, screen
from aegis.client_privacy.account import SiteAccount
from aegis.client_privacy.cohort_sampling import CohortSample, noise_keystream, sampled_sites, sampling_keystream
from aegis.client_privacy.mechanism import clipped_sum, noised_mean
from aegis.errors import AegisError
from coreason_enclave.accounting import ClientGuarantee
from coreason_enclave.crypto import JobKeys
from coreason_enclave.errors import LedgerConflict
from coreason_enclave.ledger import LineageCaps, NoiseSource, PrivacyLedger, Reservation
from coreason_enclave.schemas import Aggregator, ClientPrivacyConfig, FederationJob
from coreason_enclave.wire import AdmittedUpdate


class ReleasedOtherwise(AegisError):
    """The ledger holds another model for this draw: this model may not leave, and the round must be resampled."""


@dataclass(frozen=True)
class ClientPrivacy:
    """Keeps the promise of a job's :class:`~coreason_enclave.schemas.ClientPrivacyConfig`.

    Args:
        ledger: the coordinator's own. caps: see :class:`~aegis.client_privacy.account.SiteAccount`.
        keys: source of the coordinator's secret key for the job.
    """

    job: FederationJob
    config: ClientPrivacyConfig
    ledger: PrivacyLedger
    caps: LineageCaps
    keys: JobKeys

    @property
    def account(self) -> SiteAccount:
        """The job's account in the ledger."""
        seeded = self.keys.unsafe_seeded
        source = NoiseSource.UNSAFE_SEEDED if seeded else NoiseSource.COORDINATOR_KEYSTREAM
        return SiteAccount(self.job, self.config, self.ledger, self.caps, source)

    def reserve(self, draw: CohortSample) -> CohortSample:
        """Charge ``draw``, or the round's next draw that no other run of this job used with another model; return it.

        Durable on return. Errors: see :meth:`SiteAccount.reserve`; a failed call charges nothing.
        """
        while True:
            try:
                self.account.reserve(draw)
            except LedgerConflict:
                draw = replace(draw, number=draw.number + 1)
            else:
                return draw

    def draw_sites(self, draw: CohortSample, eligible: Iterable[str]) -> tuple[str, ...]:
        """Return the sites that a reserved draw asks, out of ``eligible``."""
        self._reservation(draw)
        stream = sampling_keystream(self._key(), draw)
        return sampled_sites(eligible, draw, sample_rate=self.config.sample_rate, keystream=stream)

    def combine(self, draw: CohortSample, updates: Iterable[AdmittedUpdate], layout: Layout) -> Aggregate:
        """Return the noised mean of the admitted updates; without updates, noise alone.

        An update set aside by the aggregators' screening counts as zero, like a silent site's. The denominator stays.
        """
        admitted = {update.site_id: update for update in updates}
        screened = screen(admitted.values(), layout, self.job.max_update_norm)
        counted = [admitted[accepted.site_id] for accepted in screened.accepted]  # sorted by name
        delta = noised_mean(
            clipped_sum([accepted.arrays for accepted in screened.accepted], layout, self.config.clip_norm),
            noise_keystream(self._key(), draw, counted),
            draw=draw.number,
            deviation=self.config.noise_multiplier * self.config.clip_norm,
            expected_sites=self.config.sample_rate * draw.population,
        )
        used = tuple(update.site_id for update in counted)
        return Aggregate(Aggregator.MEAN, 0, delta, used, screened.quarantined)

    def commit(self, draw: CohortSample, model_digest: str) -> None:
        """Record the model that a draw gave, durable on return. From then on the model may be saved and shown.

        Raises:
            ReleasedOtherwise: another model was recorded for this draw before.
        """
        try:
            self.account.commit(self._reservation(draw), model_digest)
        except LedgerConflict as error:
            raise ReleasedOtherwise(str(error)) from error

    def guarantee(self) -> ClientGuarantee | None:
        """Return the guarantee for each site over the rounds so far, or None before the first round."""
        return self.account.guarantee()

    def _reservation(self, draw: CohortSample) -> Reservation:
        """Return the reservation of an already reserved draw; reserving again changes nothing."""
        return self.account.reserve(draw)

    def _key(self) -> bytes:
        return self.keys.key(self.job.digest())
