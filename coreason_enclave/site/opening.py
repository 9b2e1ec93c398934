"""Create and open a site folder. Only this module chooses a session's collaborators.

A site is a folder with ``site.toml``, which says where data, keys, ledger and log lie. Creating a site makes the keys
and registers the data lineages, and never touches an existing site.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from coreason_enclave.attestation import Appraiser, AttestationPolicy, Attester, FileChallenges
from coreason_enclave.attestation.endorsements import opened
from coreason_enclave.crypto import (
    HashLog,
    JobKeys,
    KemKeys,
    KemKeysInMemory,
    SecretJobKeys,
    Signer,
    load_or_create_signer,
)
from coreason_enclave.errors import ConfigurationError
from coreason_enclave.hardware import attester_named
from coreason_enclave.ledger import LineageCaps, LineageRegistration, PrivacyLedger, SqliteLedger
from coreason_enclave.policy import LineagePolicy, SiteConfig, load_site_config
from coreason_enclave.privacy import LocalSgdTrainer, Trainer
from coreason_enclave.schemas import NeighboringRelation, Profile
from coreason_enclave.sentry import DataSentry
from coreason_enclave.session import LocalMetricsLog, SecureSession, SiteHandshake, UpdateStore
from coreason_enclave.site.policy_edits import CONFIG_FILE
from coreason_enclave.site.trainer_loading import load_trainer
from coreason_enclave.wire import COORDINATOR
from coreason_enclave.witness import CheckpointStore

VALIDATIONS_FILE = "validations.jsonl"


@dataclass(frozen=True)
class Site:
    """An opened site; close it to release its ledger and log."""

    config: SiteConfig
    signer: Signer
    ledger: PrivacyLedger
    log: HashLog
    session: SecureSession

    def close(self) -> None:
        """Release the ledger and the log."""
        self.ledger.close()
        self.log.close()


def create_site(folder: Path, config: SiteConfig) -> str:
    """Create a site: make the signing key, register the lineages, write ``site.toml``.

    Returns:
        The public key (hex).

    Raises:
        ConfigurationError: ``folder`` already holds a site.
    """
    path = folder / CONFIG_FILE
    if path.exists():
        raise ConfigurationError(f"{path} exists: a site and its budgets can be created only once")
    folder.mkdir(parents=True, exist_ok=True)
    public_key = prepare_site(folder, config)
    path.write_bytes(
        tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)).encode()
    )  # last: without this file, the site does not exist yet
    return public_key


def prepare_site(folder: Path, config: SiteConfig) -> str:
    """Make the signing key and register the lineages. Repeating the call changes no key and no registration.

    Returns:
        The public key (hex).

    Raises:
        LedgerError: a lineage's registration differs from ``config``, or the ledger began under another profile.
    """
    signer = load_or_create_signer(folder / config.keys / "signing.key")
    with closing(SqliteLedger(folder / config.ledger)) as ledger:
        ledger.keep_profile(config.profile)
        for entry in config.lineages:
            ledger.register(_registration(entry))
    return signer.public_hex


def open_site(
    folder: Path,
    *,
    trainer: Trainer | None = None,
    job_keys: JobKeys | None = None,
    kem_keys: KemKeys | None = None,
    clock: Callable[[], float] = time.time,
) -> Site:
    """Open the site in ``folder``.

    Args:
        trainer: default: the trainer named in ``site.toml``, else :class:`LocalSgdTrainer`.
        job_keys: default: the site's own secret keys.
        kem_keys: default: fresh keys, only in memory.
        clock: returns Unix seconds.

    Raises:
        ConfigurationError: unusable configuration, or an attester unknown to this version.
        LedgerError: a lineage's registration differs from ``site.toml``, the ledger began under another profile, or the
            ledger does not verify.
    """
    config = load_site_config(folder / CONFIG_FILE)
    attester = attester_named(config.attester)
    signer = load_or_create_signer(folder / config.keys / "signing.key")
    with ExitStack() as opened:  # on failure, release ledger and log for the next attempt
        ledger = SqliteLedger(folder / config.ledger)
        opened.callback(ledger.close)
        ledger.keep_profile(config.profile)
        for entry in config.lineages:
            ledger.register(_registration(entry))
        log = HashLog(folder / config.audit, clock=clock)
        opened.callback(log.close)
        session = SecureSession(
            config=config,
            signer=signer,
            attester=attester,
            handshake=_handshake(folder, config, signer, attester, clock, kem_keys),
            ledger=ledger,
            ledger_file=(folder / config.ledger).absolute(),
            sentry=DataSentry(folder / config.data_root),
            trainer=_trainer(folder, config) if trainer is None else trainer,
            job_keys=SecretJobKeys(folder / config.keys / "jobs") if job_keys is None else job_keys,
            log=log,
            released=UpdateStore(folder / config.released),
            local_metrics=LocalMetricsLog(folder / VALIDATIONS_FILE),
            checkpoints=CheckpointStore(folder / config.checkpoints),
            clock=clock,
        )
        opened.pop_all()
    return Site(config, signer, ledger, log, session)


def _trainer(folder: Path, config: SiteConfig) -> Trainer:
    if config.trainer is None:
        return LocalSgdTrainer()
    return load_trainer(config.trainer, config.site_id, DataSentry(folder / config.data_root))


def _handshake(
    folder: Path,
    config: SiteConfig,
    signer: Signer,
    attester: Attester,
    clock: Callable[[], float],
    kem_keys: KemKeys | None,
) -> SiteHandshake:
    return SiteHandshake(
        site_id=config.site_id,
        signer=signer,
        attester=attester,
        appraiser=_appraiser(folder, config),
        challenges=FileChallenges(folder / config.challenges),
        clock=clock,
        kem_keys=KemKeysInMemory() if kem_keys is None else kem_keys,
    )


def _appraiser(folder: Path, config: SiteConfig) -> Appraiser | None:
    """Return the judge of coordinators' evidence; None if ``site.toml`` demands none."""
    policy = config.policy.coordinator_attestation
    if config.profile is Profile.UNATTESTED:
        accepted = {COORDINATOR: config.policy.unattested_coordinators}
        policy = AttestationPolicy.unattested_only()
    elif policy is None:
        return None
    else:
        accepted = {}
    return Appraiser(policy, config.profile, opened(config.endorsements, folder), unattested=accepted)


def _registration(entry: LineagePolicy) -> LineageRegistration:
    return LineageRegistration.with_best_order(
        lineage=entry.lineage,
        unit=entry.unit,
        neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
        nominal_units=entry.nominal_units,
        public=entry.public,
        caps=LineageCaps(
            epsilon=entry.epsilon, delta=entry.delta, job_epsilon=entry.job_epsilon, job_delta=entry.job_delta
        ),
    )
