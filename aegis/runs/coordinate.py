"""Coordinates a planned run over connected sites: log, coordinator, results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager

from aegis.client_privacy import ClientPrivacy
from aegis.errors import InvalidJob
from aegis.federated_coordinator import FederatedCoordinator
from aegis.federation import FederationFolder
from aegis.rounds import CoordinatorHandshake, ParticipantView, RoundHooks, RunRecords
from aegis.runs.connect import ConnectedSites
from aegis.runs.plan import RunPlan, report_round
from aegis.runs.results import RunOutcome, write_results
from aegis.runs.resuming import record_configuration, require_whole, sign_checkpoint
from aegis.runs.site_privacy import client_privacy_of
from aegis.security import HashLog
from aegis.stores import FileHeadStore, RoundRecord
from coreason_enclave.accounting import require_less_noise_than_norm
from coreason_enclave.attestation import Appraiser, FileChallenges
from coreason_enclave.attestation.endorsements import opened
from coreason_enclave.errors import JobRejected
from coreason_enclave.hardware import attester_named
from coreason_enclave.schemas import FederationJob
from coreason_enclave.wire import Arrays


def coordinate(job: FederationJob, plan: RunPlan, sites: ConnectedSites, audit: HashLog) -> RunOutcome:
    """Coordinate a prepared run over connected sites, and write its results.

    Args:
        audit: the run's log, from :func:`open_log`.

    Raises:
        AegisError: the run paused, or its state belongs to another job.
    """
    from aegis.runtimes import initial_model  # here, as this import loads the frameworks

    first = initial_model(job)
    _require_release(job, first, sites)
    with client_privacy_of(job, plan.federation, plan.unsafe_seed) as privacy:
        coordinator = _coordinator(job, plan, sites, audit, privacy)
        model = coordinator.run_over(sites.transport, first)
        setting = plan.federation, plan.folder, audit, sites.sites
        return write_results(*setting, model, privacy, lambda: coordinator.announce(sites.transport))


def _require_release(job: FederationJob, model: Arrays, sites: ConnectedSites) -> None:
    """Refuse a job whose noise alone exceeds its norm even at the largest local site. Remote sites do so themselves."""
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
def open_log(plan: RunPlan) -> Iterator[HashLog]:
    """Open the run's log after a check that all stored records belong to the log; one process at a time holds the log.

    Raises:
        RunFolderError: the run's records are damaged, or do not belong to each other.
    """
    folder, signer = plan.folder, plan.federation.signer()
    with closing(HashLog(folder.path / "audit.jsonl")) as audit:
        require_whole(folder, signer.public_hex)
        record_configuration(folder, audit, plan.federation.config().profile)
        sign_checkpoint(folder, audit, signer)
        yield audit


def _coordinator(
    job: FederationJob, plan: RunPlan, sites: ConnectedSites, audit: HashLog, client_privacy: ClientPrivacy | None
) -> FederatedCoordinator:
    federation = plan.federation

    def after_round(record: RoundRecord) -> None:
        sign_checkpoint(plan.folder, audit, federation.signer())
        report_round(plan, sites.sites, job, record)

    return FederatedCoordinator(
        job,
        ParticipantView(
            sites.participants,
            revoked=lambda: federation.config().revoked,
            readmitted=plan.readmit,
            liveness=sites.liveness,
        ),
        _handshake(federation),
        RunRecords(plan.folder.store(), audit, FileHeadStore(federation.coordinator / "heads")),
        client_privacy=client_privacy,
        hooks=RoundHooks(evaluate=_evaluator(job, federation), observe=after_round),
    )


def _handshake(federation: FederationFolder) -> CoordinatorHandshake:
    config = federation.config()
    return CoordinatorHandshake(
        federation.signer(),
        Appraiser(
            config.attestation_policy(),
            config.profile,
            opened(config.endorsements, federation.path),
            unattested=config.accepted_unattested(),
        ),
        attester=None if config.attester is None else attester_named(config.attester),
        challenges=FileChallenges(federation.coordinator / "challenges"),
    )


def _evaluator(job: FederationJob, federation: FederationFolder) -> Callable[[Arrays], Mapping[str, float]]:
    evaluation = federation.evaluation_set()
    if evaluation is None:
        return lambda _: {}
    from aegis.runtimes import public_evaluator

    return public_evaluator(job, evaluation.features, evaluation.labels)
