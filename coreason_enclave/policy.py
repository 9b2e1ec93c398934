"""A site's own rules, read from ``site.toml``: the limits on any coordinator's requests.

The policy denies by default: an empty list accepts no request. Loading refuses a profile that contradicts the rest:

- ``development`` accepts simulated attestation, and needs every data lineage to be public;
- ``unattested`` needs ``attester = "unattested"``, and accepts the coordinators listed in ``unattested_coordinators``;
- ``production`` needs a source of evidence on both ends.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from coreason_enclave.attestation import AttestationPolicy, AttesterName
from coreason_enclave.attestation.endorsements import EndorsementSettings
from coreason_enclave.configuration import read_toml_as
from coreason_enclave.errors import JobRejected, Reason
from coreason_enclave.schemas import (
    AggregationStrategy,
    Aggregator,
    Delta,
    Epsilon,
    FederationJob,
    Flag,
    FormatVersion,
    HexDigest,
    Mechanism,
    NoiseMultiplier,
    PrivacyConfig,
    Profile,
    SafeId,
    SafePath,
    SiteUnit,
    StrictModel,
    in_range,
    of_form,
)

_NAME = r"[A-Za-z_]\w{0,127}"
_CLASS = re.compile(rf"{_NAME}(?:\.{_NAME}){{0,15}}:{_NAME}", re.ASCII)
TrainerName = Annotated[str, AfterValidator(of_form(_CLASS, "package.module:Class, a class installed on this host"))]
"""A trainer class in the form ``package.module:Class``."""


def _without_steps_up(value: str) -> str:
    if ".." in PurePosixPath(value).parts or "\0" in value or not value:
        raise ValueError("must not step out of the site's folder with '..': write an absolute path")
    return value


DataRootPath = Annotated[str, AfterValidator(_without_steps_up)]
"""A folder below the site's folder, or an absolute path, which says plainly where the rows lie."""


class LineagePolicy(StrictModel):
    """One data lineage in a site's registration: unit, public size, caps. No field has a default."""

    lineage: SafePath
    dataset_id: SafePath
    unit: SiteUnit
    nominal_units: Annotated[int, *in_range(1, 1 << 53)]
    public: Flag
    epsilon: Epsilon
    delta: Delta
    job_epsilon: Epsilon
    job_delta: Delta

    @model_validator(mode="after")
    def _delta_is_small(self) -> Self:
        if self.delta >= 1 / self.nominal_units:
            raise ValueError(f"delta must be below 1/nominal_units = {1 / self.nominal_units:g}, got {self.delta:g}")
        return self


class SitePolicy(StrictModel):
    """The site's limits on a coordinator's requests. The refusal of a job names the violated policy line.

    Attributes:
        participants: the other sites that this site knows, with their Ed25519 keys. Only these sites and this site
            itself count towards ``min_clients`` in a roll-call.
        unsafe_count_unknown_participants: count every key that signed. Anyone can make keys and so make up
            participants, hence only profile ``development`` allows this flag.
        coordinator_attestation: the attestation that a coordinator must prove before the site trains its model and
            sends an update.
        unsafe_unattested_coordinator: accept a coordinator without attestation. Profile ``production`` requires either
            this flag or ``coordinator_attestation``; the two exclude each other.
        unattested_coordinators: keys of ``coordinator_keys`` whose coordinators are accepted without evidence of their
            hardware. Profile ``unattested`` only; every other coordinator is refused there.
        refuse_changed_content: refuse a round whose rows differ from the rows of the job's last round, even if the job
            declares that lineages may grow.
        min_units: the smallest number of persons (rows, at record level) that a lineage must declare and a dataset must
            hold.
        max_base_weight: the largest absolute weight of a base model. The site refuses a base model with a larger or
            non-finite weight before reserving any budget.
        max_logit: the largest absolute output of a base model for rows within the dataset's declared ranges. The site
            refuses a base model with larger or non-finite outputs before reserving any budget.
    """

    coordinator_keys: tuple[HexDigest, ...]
    participants: dict[SafeId, HexDigest]
    unsafe_count_unknown_participants: Flag = False
    model_archs: tuple[SafeId, ...]
    strategies: tuple[AggregationStrategy, ...]
    aggregators: tuple[Aggregator, ...]
    min_clients: Annotated[int, *in_range(1, 1 << 53)]
    min_units: Annotated[int, *in_range(1, 1 << 53)]
    min_noise_multiplier: NoiseMultiplier
    max_update_norm: Annotated[float, *in_range(0, 1e9, open_low=True)]
    max_order_lifetime_s: Annotated[int, *in_range(1, 1 << 53)]
    refuse_changed_content: Flag = False
    max_base_weight: Annotated[float, *in_range(0, 3.4e38, open_low=True)] = 1e4
    max_logit: Annotated[float, *in_range(0, 3.4e38, open_low=True)] = 1e4
    coordinator_attestation: AttestationPolicy | None = None
    unsafe_unattested_coordinator: Flag = False
    unattested_coordinators: tuple[HexDigest, ...] = ()

    @model_validator(mode="after")
    def _one_key_each(self) -> Self:
        if len(set(self.participants.values())) != len(self.participants):
            raise ValueError("participants lists one key under two names, which would count twice: remove one entry")
        if self.coordinator_attestation is not None and self.unsafe_unattested_coordinator:
            raise ValueError("coordinator_attestation and unsafe_unattested_coordinator contradict each other")
        if unknown := [key for key in self.unattested_coordinators if key not in self.coordinator_keys]:
            raise ValueError(f"unattested_coordinators lists {unknown[0][:16]}…, which coordinator_keys does not list")
        return self

    def check(self, job: FederationJob, lineage: LineagePolicy) -> None:
        """Raise :class:`JobRejected` naming the first policy line that the resolved ``job`` violates."""
        for allowed, line in (*self._lines(job), *self._lines_of(lineage, job.privacy)):
            if not allowed:
                raise JobRejected(f"site policy: {line}", reason=Reason.POLICY)

    def _lines(self, job: FederationJob) -> tuple[tuple[bool, str], ...]:
        noise = job.privacy.noise_multiplier
        return (
            (job.model_arch in self.model_archs, f"model_archs does not list the job's {job.model_arch}"),
            (job.strategy in self.strategies, f"strategies does not list the job's {job.strategy}"),
            (job.aggregator in self.aggregators, f"aggregators does not list the job's {job.aggregator}"),
            (
                job.min_clients >= self.min_clients,
                f"min_clients is {self.min_clients}, but the job has {job.min_clients}",
            ),
            (
                noise is None or noise >= self.min_noise_multiplier,
                f"min_noise_multiplier is {self.min_noise_multiplier:g}, but the job has {noise}",
            ),
            (
                job.max_update_norm <= self.max_update_norm,
                f"max_update_norm is {self.max_update_norm:g}, but the job has {job.max_update_norm:g}",
            ),
        )

    def _lines_of(self, lineage: LineagePolicy, privacy: PrivacyConfig) -> tuple[tuple[bool, str], ...]:
        epsilon, delta = privacy.target_epsilon, privacy.delta
        where = f"of lineage {lineage.lineage}"
        return (
            (
                lineage.nominal_units >= self.min_units,
                f"min_units is {self.min_units}, but nominal_units {where} is {lineage.nominal_units}",
            ),
            (
                lineage.public or privacy.mechanism is not Mechanism.NON_PRIVATE,
                f"public {where} is false: non-private training on it is refused",
            ),
            (
                epsilon is None or epsilon <= lineage.job_epsilon,
                f"job_epsilon {where} is {lineage.job_epsilon:g}, but the job's target_epsilon is {epsilon}",
            ),
            (
                delta is None or delta <= lineage.job_delta,
                f"job_delta {where} is {lineage.job_delta:g}, but the job's delta is {delta}",
            ),
        )


class SiteConfig(StrictModel):
    """A site's configuration: identity, paths and policy. Paths are relative to ``site.toml``.

    Attributes:
        data_root, keys, ledger, audit: paths of the data, the keys, the ledger and the log.
        released, challenges, checkpoints: folders of released updates, challenges and checkpoints.
        attester: the source of evidence on this host (``tdx``, ``snp``, ``sgx``, with ``+nvidia`` for attested GPUs).
            ``simulated`` needs profile ``development``; ``unattested`` needs, and is needed by, profile ``unattested``.
        endorsements: the sources of vendors' endorsements for a coordinator's hardware.
        trainer: a class in the form ``package.module:Class`` that replaces the standard training loop. The class must
            derive from ``CoreasonExecutor``, be installed by this site, and need no constructor arguments. The trainer
            runs inside the session, under the same reservation, accounting and airlock. No job can name a trainer.
    """

    version: FormatVersion
    site_id: SafeId
    profile: Profile
    data_root: DataRootPath
    keys: str
    ledger: str
    audit: str
    attester: AttesterName
    endorsements: EndorsementSettings = Field(default_factory=EndorsementSettings)
    released: str = "released"
    challenges: str = "challenges"
    checkpoints: str = "checkpoints"
    trainer: TrainerName | None = None
    policy: SitePolicy
    lineages: tuple[LineagePolicy, ...]

    @model_validator(mode="after")
    def _profile_and_data_fit(self) -> Self:
        private = [entry.lineage for entry in self.lineages if not entry.public]
        if self.profile is Profile.DEVELOPMENT and private:
            raise ValueError(f"profile development needs every lineage to be public, but {private[0]} is not public")
        if self.profile is not Profile.DEVELOPMENT and self.policy.unsafe_count_unknown_participants:
            raise ValueError("unsafe_count_unknown_participants needs profile development: list the participants' keys")
        if (self.attester == "unattested") != (self.profile is Profile.UNATTESTED):
            raise ValueError(
                'attester = "unattested" and profile = "unattested" need each other: with both lines, this site states '
                "that it trains on a host without hardware evidence"
            )
        if self.profile is Profile.UNATTESTED:
            return self._checked_unattested()
        if self.policy.unattested_coordinators:
            raise ValueError("unattested_coordinators needs profile unattested")
        attested = self.policy.coordinator_attestation is not None or self.policy.unsafe_unattested_coordinator
        if self.profile is not Profile.DEVELOPMENT and not attested:
            raise ValueError("policy needs coordinator_attestation (or unsafe_unattested_coordinator = true)")
        return self

    def _checked_unattested(self) -> Self:
        if self.policy.coordinator_attestation is not None or self.policy.unsafe_unattested_coordinator:
            raise ValueError(
                "profile unattested asks no coordinator for evidence: list the accepted coordinators' keys in "
                "unattested_coordinators, and remove coordinator_attestation and unsafe_unattested_coordinator"
            )
        return self

    @model_validator(mode="after")
    def _one_lineage_each(self) -> Self:
        datasets = [entry.dataset_id for entry in self.lineages]
        if len(set(datasets)) != len(datasets):
            raise ValueError("each dataset must belong to exactly one lineage")
        return self

    def lineage_of(self, dataset_id: str) -> LineagePolicy:
        """Return the registration of a dataset, or raise :class:`JobRejected` for an unregistered dataset."""
        for entry in self.lineages:
            if entry.dataset_id == dataset_id:
                return entry
        raise JobRejected(
            f"dataset {dataset_id!r} has no lineage at {self.site_id}: add one to site.toml",
            reason=Reason.LINEAGE_UNKNOWN,
        )


def load_site_config(path: Path) -> SiteConfig:
    """Read ``site.toml``.

    Raises:
        ConfigurationError: a field is missing, unknown or out of range, or fields contradict each other.
    """
    return read_toml_as(path, SiteConfig)
