"""Running one job over a federation folder into a run folder, on the runtime of choice; and going on after a crash."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from aegis.client_privacy import ClientPrivacy
from aegis.errors import InvalidJob, RunFolderError
from aegis.federated_coordinator import FederatedCoordinator
from aegis.federation import FederationConfig, FederationFolder
from aegis.jobs import resolve
from aegis.runs.folder import RunFolder, installed_versions
from aegis.runs.pins import pinned, require_coordinator_key, require_pinned
from aegis.runs.results import Outcome, lineages_of, read_outcome, write_results
from aegis.runs.resuming import record_configuration, require_whole, sign_checkpoint
from aegis.runs.runtimes import LocalLedger, OpenedSites, RuntimeName, opened_on
from aegis.runs.site_privacy import client_privacy_of, require_site_budget
from aegis.runtimes.nvflare.options import FlareOptions
from aegis.security.audit import HashLog
from aegis.stores.heads import FileHeadStore
from aegis.stores.run_state import RoundRecord
from coreason_enclave.attestation.appraisal import Appraiser
from coreason_enclave.attestation.challenges import FileChallenges
from coreason_enclave.attestation.endorsements import opened
from coreason_enclave.errors import JobRejected
from coreason_enclave.hardware.discovery import attester_named
from coreason_enclave.ledger import LineageClaim
from coreason_enclave.noise_norm import require_less_noise_than_norm
from coreason_enclave.policy import Profile
from coreason_enclave.schemas import FederationJob
from coreason_enclave.updates import Arrays

__all__ = ["Execution", "Outcome", "RoundReport", "conduct", "execute", "prepare", "report_round"]


@dataclass(frozen=True)
class RoundReport:
    """A completed round as an observer sees it; ``lineages`` are the local sites' own claims, by site."""

    record: RoundRecord
    lineages: Mapping[str, LineageClaim]


@dataclass(frozen=True)
class Execution:
    """How a job is to be run.

    Attributes:
        unsafe_seed: inject all sampling and noise from this number. Reproducible, and unsafe: recorded as such.
        attackers: how many sites (the first by name) a simulated attacker takes over.
        observe: called after each round. say: called with a line, where a run waits longer than it should.
        readmit: sites whose offences are forgotten before the run goes on.
        runtime: what carries the messages; the model is the same on each.
        flare: how a run over NVIDIA FLARE is hosted.
    """

    federation: FederationFolder
    folder: RunFolder
    unsafe_seed: int | None = None
    attackers: int = 0
    observe: Callable[[RoundReport], None] = field(default=lambda _: None)
    say: Callable[[str], None] = field(default=lambda _: None)
    readmit: tuple[str, ...] = ()
    runtime: RuntimeName = RuntimeName.IN_PROCESS
    flare: FlareOptions = field(default_factory=FlareOptions)

    def options(self) -> dict[str, Any]:
        """The part of the configuration that a resumed run has to share."""
        return {"runtime": self.runtime.value, "unsafe_seed": self.unsafe_seed, "simulated_attackers": self.attackers}


def execute(job: FederationJob, execution: Execution) -> Outcome:
    """Run ``job``, or continue it, and write everything the folder is to hold.

    Raises:
        AegisError: a job, federation or folder that cannot be used, or a run that paused.
    """
    job = prepare(job, execution)
    if execution.runtime is RuntimeName.NVFLARE:
        from aegis.runs.flare import coordinate_on_flare

        coordinate_on_flare(job, execution)
        return read_outcome(execution.folder)
    with _audited(execution) as audit, _opened(execution) as sites:
        return _conduct(job, execution, sites, audit)


def prepare(job: FederationJob, execution: Execution) -> FederationJob:
    """Begin the run's folder, or find it begun by the same job; return the job with every privacy value explicit.

    Raises:
        AegisError: the job or the folder cannot be used, or the run was begun under other values.
    """
    folder, federation = execution.folder, execution.federation
    config = federation.config()
    job = resolve(job, delta=config.delta)
    _require_attackers(execution, len(config.public_keys))
    require_site_budget(job, config)
    if folder.is_finished:
        raise RunFolderError(f"{folder.path} holds a finished run: choose another folder")
    if folder.is_started:
        require_coordinator_key(federation)
        require_pinned(folder.read_json("config.json"), pinned(job, execution.options(), federation, config))
    else:
        folder.begin(job, _configuration(job, execution, config), federation.evaluation_data())
    return job


def conduct(job: FederationJob, execution: Execution, sites: OpenedSites) -> Outcome:
    """Coordinate a run that was prepared over sites that were opened, and write its results.

    Raises:
        AegisError: the run paused, or its state is another job's.
    """
    with _audited(execution) as audit:
        return _conduct(job, execution, sites, audit)


def _conduct(job: FederationJob, execution: Execution, sites: OpenedSites, audit: HashLog) -> Outcome:
    from aegis.runtimes.in_process import initial_model  # loads the frameworks, which a run elsewhere does without

    first = initial_model(job)
    _require_release(job, first, sites)
    with client_privacy_of(job, execution.federation, execution.unsafe_seed) as privacy:
        coordinator = _coordinator(job, execution, sites, audit, privacy)
        model = coordinator.run_over(sites.carrier, first)
        where = execution.federation, execution.folder, audit, sites.sites
        return write_results(*where, model, privacy, lambda: coordinator.announce(sites.carrier))


def _require_release(job: FederationJob, model: Arrays, sites: OpenedSites) -> None:
    """Refuse a job whose noise alone would exceed its norm even at the largest site known here; others say so."""
    lineages = [lineage for site in sites.sites.values() for lineage in site.config.lineages]
    units = [lineage.nominal_units for lineage in lineages if lineage.dataset_id == job.dataset_id]
    if not units:
        return
    try:
        weights = sum(array.size for array in model.values())
        require_less_noise_than_norm(job, parameters=weights, nominal_units=max(units))
    except JobRejected as error:
        raise InvalidJob(f"privacy: {error}") from error


@contextmanager
def _audited(execution: Execution) -> Iterator[HashLog]:
    """The run's log, once everything that was kept belongs to it; one process at a time holds it.

    Raises:
        RunFolderError: the run's records are damaged, or do not belong to each other.
    """
    folder, signer = execution.folder, execution.federation.signer()
    audit = HashLog(folder.path / "audit.jsonl")
    try:
        require_whole(folder, signer.public_hex)
        record_configuration(folder, audit, execution.federation.config().profile)
        sign_checkpoint(folder, audit, signer)
        yield audit
    finally:
        audit.close()


def _opened(execution: Execution) -> AbstractContextManager[OpenedSites]:
    return opened_on(
        execution.runtime,
        execution.federation,
        note=execution.folder.path / "flower-run.json",
        unsafe_seed=execution.unsafe_seed,
        attackers=execution.attackers,
    )


def _coordinator(
    job: FederationJob, execution: Execution, sites: OpenedSites, audit: HashLog, client_privacy: ClientPrivacy | None
) -> FederatedCoordinator:
    federation, folder = execution.federation, execution.folder
    config = federation.config()
    return FederatedCoordinator(
        job,
        sites.participants,
        signer=federation.signer(),
        store=folder.store(),
        heads=FileHeadStore(federation.path / "coordinator" / "heads"),
        audit=audit,
        profile=config.profile,
        appraiser=_appraiser(federation),
        challenges=FileChallenges(federation.coordinator / "challenges"),
        attester=None if config.attester is None else attester_named(config.attester),
        client_privacy=client_privacy,
        liveness=sites.liveness,
        revoked=lambda: federation.config().revoked,
        readmit=execution.readmit,
        evaluate=_evaluator(job, federation),
        observe=lambda record: _after_round(execution, sites.sites, job, audit, record),
    )


def _after_round(
    execution: Execution, sites: Mapping[str, LocalLedger], job: FederationJob, audit: HashLog, record: RoundRecord
) -> None:
    sign_checkpoint(execution.folder, audit, execution.federation.signer())
    report_round(execution, sites, job, record)


def _appraiser(federation: FederationFolder) -> Appraiser:
    config = federation.config()
    return Appraiser(config.attestation_policy(), config.profile, opened(config.endorsements, federation.path))


def _evaluator(job: FederationJob, federation: FederationFolder) -> Callable[[Arrays], Mapping[str, float]]:
    evaluation = federation.evaluation_set()
    if evaluation is None:
        return lambda _: {}
    from aegis.runtimes.in_process import public_evaluator

    return public_evaluator(job, evaluation.features, evaluation.labels)


def report_round(
    execution: Execution, sites: Mapping[str, LocalLedger], job: FederationJob, record: RoundRecord
) -> None:
    """Tell whoever observes the run of a completed round, with what the local sites' ledgers say by now."""
    having = lineages_of(sites, job.dataset_id)
    claims = {name: sites[name].ledger.lineage_claim(lineage) for name, lineage in having.items()}
    execution.observe(RoundReport(record, claims))


def _configuration(job: FederationJob, execution: Execution, config: FederationConfig) -> dict[str, Any]:
    """``config.json``: what the run is pinned to, and what else a reader wants to know of its beginning."""
    return {
        "job": job.job_id,
        **pinned(job, execution.options(), execution.federation, config),
        "randomness": "secret keys made by each site" if execution.unsafe_seed is None else "UNSAFE: injected seed",
        "attestation": "simulated" if config.profile is Profile.DEVELOPMENT else "required",
        "local_sites": [folder.name for folder in execution.federation.site_folders()],
        "versions": installed_versions(),
        **({"flare": execution.flare.described()} if execution.runtime is RuntimeName.NVFLARE else {}),
    }


def _require_attackers(execution: Execution, sites: int) -> None:
    if not sites:
        raise InvalidJob("nobody takes part in this federation yet: admit a site first")
    if not 0 <= execution.attackers < sites:
        raise InvalidJob(f"attackers must be in [0, {sites - 1}]: at least one of {sites} sites stays honest")
    if execution.attackers and execution.runtime is RuntimeName.NVFLARE:
        raise InvalidJob("there are no simulated attackers on NVIDIA FLARE: choose another runtime")
