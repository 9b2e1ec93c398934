"""Checks of this host's keys, disk, socket, data and ledger, and whether the policy can ever accept an order."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from coreason_enclave.agent.doctor.findings import Diagnosis, DiagnosisLevel, Examined
from coreason_enclave.command_line import one_line
from coreason_enclave.crypto import load_or_create_secret, read_private
from coreason_enclave.errors import ConfigurationError, DatasetRejected, EnclaveError, Reason
from coreason_enclave.ipc import SOCKET_FILE, socket_path
from coreason_enclave.ledger import SqliteLedger, verify_export
from coreason_enclave.policy import LineagePolicy
from coreason_enclave.schemas import PrivacyUnit
from coreason_enclave.site import NODE_KEY, TLS_KEY, load_node_key, load_tls_key

if TYPE_CHECKING:
    from coreason_enclave.sentry import DataSentry

_Key = tuple[str, Callable[[], object], str]
"""A file name, its loader, and the command that creates the file."""

_NO = "the rows or their declaration are refused; for the site's own eyes: coreason-enclave dataset check"
"""All that is told on a lineage that is not public: any other word might depend on a row."""
_MIN_FREE, _FEW_FREE = 200 << 20, 2 << 30


def keys(site: Examined) -> Iterator[Diagnosis]:
    """Check that each key exists, is readable by its owner alone, and has the right form."""
    folder = site.folder / site.config.keys
    of_the_site: list[_Key] = [("signing.key", lambda: _a_secret(folder / "signing.key"), "init")]
    for_the_gateway: list[_Key] = [
        (NODE_KEY, lambda: load_node_key(folder), "request"),
        (TLS_KEY, lambda: load_tls_key(folder), "request"),
    ]
    for name, load, made_by in (*of_the_site, *([] if site.socket_only else for_the_gateway)):
        if not (folder / name).exists():
            to_do = f"run coreason-enclave {made_by}, or restore it from a backup"
            yield Diagnosis(f"key {name}", DiagnosisLevel.FAIL, f"{folder / name} is missing", to_do)
            continue
        try:
            load()
        except ConfigurationError as error:
            yield Diagnosis(f"key {name}", DiagnosisLevel.FAIL, str(error), "restore key or mode; never send the key")
        else:
            yield Diagnosis(f"key {name}", DiagnosisLevel.OK, "exists, private, well-formed")


def disk(site: Examined) -> Iterator[Diagnosis]:
    """Check free space for the ledger, the log and the store of released updates."""
    free = shutil.disk_usage(site.folder).free
    found = f"{free / (1 << 30):.1f} GiB free at {site.folder}"
    verdict = (
        DiagnosisLevel.FAIL if free < _MIN_FREE else DiagnosisLevel.WARN if free < _FEW_FREE else DiagnosisLevel.OK
    )
    to_do = "" if verdict is DiagnosisLevel.OK else "free disk space: an unwritable ledger refuses every order"
    yield Diagnosis("disk", verdict, found, to_do)


def socket_place(site: Examined) -> Iterator[Diagnosis]:
    """Check that the agent can create its Unix socket, or that its socket already exists."""
    if (site.folder / SOCKET_FILE).exists():
        yield Diagnosis("socket", DiagnosisLevel.OK, f"{site.folder / SOCKET_FILE} exists: see coreason-enclave status")
        return
    trial = "doctor.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, socket_path(site.folder, trial) as path:
        try:
            probe.bind(path)
        except OSError as error:
            to_do = "give the agent's user a local folder that it can write to"
            yield Diagnosis("socket", DiagnosisLevel.FAIL, f"creation fails in {site.folder}: {error.strerror}", to_do)
            return
    (site.folder / trial).unlink()
    yield Diagnosis("socket", DiagnosisLevel.OK, f"{site.folder / SOCKET_FILE} can be created")


def data(site: Examined) -> Iterator[Diagnosis]:
    """Check that each registered dataset opens and matches its schema and registration. No finding states a count."""
    from coreason_enclave.sentry import DataSentry  # loads the table readers, for this check only

    if not site.config.lineages:
        yield Diagnosis("data", DiagnosisLevel.FAIL, "no lineage is registered", "add [[lineages]] to site.toml")
    sentry = DataSentry(site.folder / site.config.data_root)
    for entry in site.config.lineages:
        try:
            problem = _disagreement(entry, sentry, site.config.policy.min_units)
        except (EnclaveError, OSError, MemoryError) as error:
            problem = _told(error, entry, sentry)
        if problem:
            yield Diagnosis(
                f"data {entry.dataset_id}", DiagnosisLevel.FAIL, problem, "correct the data, dataset.toml or site.toml"
            )
        else:
            yield Diagnosis(f"data {entry.dataset_id}", DiagnosisLevel.OK, "opens; matches dataset.toml and site.toml")


def ledger(site: Examined) -> Iterator[Diagnosis]:
    """Check that the ledger exists and its whole hash chain verifies."""
    path = site.folder / site.config.ledger
    if not path.exists():
        to_do = "run coreason-enclave init; but restore the ledger from a backup if this site ever took part in a job"
        yield Diagnosis("ledger", DiagnosisLevel.FAIL, f"ledger {path} is missing", to_do)
        return
    store = SqliteLedger(path, must_exist=True)
    try:
        findings = verify_export(store.export())
    finally:
        store.close()
    head = f"{findings.head.seq}:{findings.head.hash[:16]}…"
    yield Diagnosis("ledger", DiagnosisLevel.OK, f"{findings.entries} entries verify, head {head}")
    missing = {entry.lineage for entry in site.config.lineages} - {claim.lineage for claim in findings.lineages}
    for lineage in sorted(missing):
        to_do = "run coreason-enclave init"
        yield Diagnosis(f"ledger {lineage}", DiagnosisLevel.WARN, "the lineage is not registered yet", to_do)


def policy(site: Examined) -> Iterator[Diagnosis]:
    """Check that the policy lists a coordinator, and enough known participants for ``min_clients``."""
    rules = site.config.policy
    if not rules.coordinator_keys:
        to_do = "list the key of a coordinator that you trust in coordinator_keys"
        yield Diagnosis("policy", DiagnosisLevel.FAIL, "coordinator_keys is empty: every order is refused", to_do)
    known = len({*rules.participants, site.config.site_id})
    if known < rules.min_clients and not rules.unsafe_count_unknown_participants:
        found = f"min_clients is {rules.min_clients}, but site.toml lists only {known} participants"
        yield Diagnosis("policy", DiagnosisLevel.FAIL, found, "add checked participant keys to [policy.participants]")
    if rules.coordinator_keys and (known >= rules.min_clients or rules.unsafe_count_unknown_participants):
        yield Diagnosis(
            "policy", DiagnosisLevel.OK, f"{len(rules.coordinator_keys)} coordinators, {known} participants known"
        )


def _a_secret(path: Path) -> bytes:
    read_private(path)
    return load_or_create_secret(path)


def _told(error: Exception, entry: LineagePolicy, sentry: DataSentry) -> str:
    """Return the words for a dataset that does not open: a refusal of private rows may count them, and is not told."""
    about_rows = not isinstance(error, EnclaveError) or error.reason is Reason.DATASET_SCHEMA
    return _NO if about_rows and not (entry.public and _declared_public(entry, sentry)) else one_line(error)


def _declared_public(entry: LineagePolicy, sentry: DataSentry) -> bool:
    """Tell whether dataset.toml, too, calls the rows public; True where no declaration was read, and so no row."""
    try:
        return sentry.declared(entry.dataset_id).public
    except EnclaveError:
        return True


def _disagreement(entry: LineagePolicy, sentry: DataSentry, min_units: int) -> str | None:
    dataset = sentry.open(entry.dataset_id)
    if (dataset.unit_ids is not None) != (entry.unit is PrivacyUnit.PERSON):
        return f"the registered unit is {entry.unit}, but dataset.toml says otherwise"
    if dataset.schema.public != entry.public:
        return "dataset.toml and site.toml disagree on whether the data is public"
    if dataset.num_units < min_units:
        raise DatasetRejected("the dataset holds fewer units than min_units")
    return None
