"""Reads the documents in a run folder, strictly and without writing."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aegis.errors import RunFolderError, VerificationFailed
from aegis.runs import RunFolder, code_in_use, installed_versions
from aegis.stores import RunState
from aegis.verification.audit_trail import AuditedUpdate, AuditTrail, read_trail
from aegis.verification.findings import require
from aegis.verification.ledgers import SiteLedger, read_ledger
from coreason_enclave.crypto import KeyRing, open_envelope, parse_json, sha256_hex, verify_lines
from coreason_enclave.errors import EnclaveError
from coreason_enclave.schemas import FederationJob, HexDigest, Profile, Provenance, SafeId
from coreason_enclave.system import explain
from coreason_enclave.wire import UPDATE_TYPE, Array, UpdateStatement, decode_arrays, layout_of

EXPECTED_FILES = (
    "job.yaml",
    "config.json",
    "audit.jsonl",
    "audit.checkpoint.json",
    "state/state.json",
    "metrics.csv",
    "model.safetensors",
    "manifest.json",
    "manifest.dsse",
    "outcome.json",
)
_LIMIT = 1 << 30


class _RecordModel(BaseModel):
    """The checked fields of a document; a run may record further fields."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class _Options(_RecordModel):
    unsafe_seed: int | None
    simulated_attackers: int


class Configuration(_RecordModel):
    """Content of ``config.json``: the configuration that the run claims.

    Attributes:
        disjoint_units: who claims that no unit has data at two sites, and on what ground.
        evaluation_set: SHA-256 of the declared public evaluation set; None if utility was not measured.
        code, versions: the software behind the numbers.
        local_sites: sites on the coordinator's host, whose ledgers a run exports; None means all sites.
    """

    job_digest: HexDigest
    coordinator_key: HexDigest
    participants: dict[SafeId, HexDigest]
    profile: str
    attestation: str
    options: _Options
    disjoint_units: str | None = None
    evaluation_set: HexDigest | None = None
    code: dict[str, str] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)
    local_sites: tuple[SafeId, ...] | None = None

    @property
    def declared_attackers(self) -> frozenset[str]:
        """Return the sites under a simulated attacker, as a demonstration declares: the first by name."""
        if self.profile != Profile.DEVELOPMENT:
            return frozenset()
        return frozenset(sorted(self.participants)[: self.options.simulated_attackers])


class ClientStatement(_RecordModel):
    """Client-level privacy as stated in ``outcome.json``."""

    unit: str
    epsilon: float
    delta: float
    noise_multiplier: float
    clip_norm: float
    sample_rate: float


class AcrossSites(_RecordModel):
    """Federation-wide privacy in ``outcome.json``: see :func:`aegis.coordination.privacy_spend.across_sites`."""

    epsilon: float | None
    delta: float | None
    rule: str
    claimed_disjoint_by: str | None


class StatedOutcome(_RecordModel):
    """Content of ``outcome.json``: the results that the run claims."""

    model: HexDigest
    rounds: int
    metrics: dict[str, float]
    evaluation_set: HexDigest | None
    federation_epsilon: AcrossSites
    epsilon: dict[SafeId, float | None]
    ledger_epsilon: dict[SafeId, float | None]
    provenance: tuple[Provenance, ...]
    content_changed: dict[SafeId, list[int]]
    client_privacy: ClientStatement | None = None


_D = TypeVar("_D", bound=BaseModel)


@dataclass(frozen=True)
class Records:
    """A run folder's documents, each read once. A bad document raises :class:`VerificationFailed` with its name."""

    folder: Path

    def data(self, name: str) -> bytes:
        """Return a file's bytes."""
        try:
            return (self.folder / name).read_bytes()
        except PermissionError as error:
            raise RunFolderError(f"{self.folder / name}: {error.strerror}: ask its owner for read access") from error
        except OSError as error:
            raise VerificationFailed(f"{name} cannot be read: {error.strerror}") from error

    def exists(self, name: str) -> bool:
        """Return True if the file exists."""
        try:
            return (self.folder / name).is_file()
        except PermissionError as error:
            raise RunFolderError(f"{self.folder / name}: {error.strerror}: ask its owner for read access") from error

    @cached_property
    def audit(self) -> bytes:
        """The audit log, with its hash chain verified."""
        data = self.data("audit.jsonl")
        verify_lines(data)
        return data

    @cached_property
    def trail(self) -> AuditTrail:
        """The run's history as the audit log records it."""
        return read_trail(self.audit)

    @cached_property
    def job(self) -> FederationJob:
        """The job as submitted."""
        self.data("job.yaml")  # first: an unreadable file raises another error than an invalid job
        return RunFolder(self.folder).job()

    @cached_property
    def config(self) -> Configuration:
        """Content of ``config.json``."""
        return self._document("config.json", Configuration)

    @cached_property
    def outcome(self) -> StatedOutcome:
        """Content of ``outcome.json``."""
        return self._document("outcome.json", StatedOutcome)

    @cached_property
    def state(self) -> RunState:
        """The coordinator's last state."""
        return self._document("state/state.json", RunState)

    @cached_property
    def metrics(self) -> tuple[Mapping[str, str], ...]:
        """The rows of ``metrics.csv``, as text."""
        try:
            return tuple(read_rows(self.data("metrics.csv").decode()))
        except (UnicodeDecodeError, csv.Error) as error:
            raise VerificationFailed(f"metrics.csv is not a table: {error}") from error

    @cached_property
    def ledgers(self) -> Mapping[str, SiteLedger | str]:
        """For every site with an accepted update: the verified ledger, or the reason for refusing the ledger."""
        return {site: self._ledger(site) for site in sorted({update.site for update in self.trail.updates})}

    def digest(self, name: str) -> str:
        """Return a file's SHA-256, computed once."""
        if name not in self._digests:
            self._digests[name] = sha256_hex(self.data(name))
        return self._digests[name]

    @cached_property
    def _digests(self) -> dict[str, str]:
        return {}

    @cached_property
    def is_of_this_build(self) -> bool:
        """True if the installed code and libraries are the ones that made the run's numbers."""
        return self.config.code == code_in_use() and self.config.versions == installed_versions()

    def is_remote(self, site: str) -> bool:
        """Return True if a site keeps its ledger on its own host, and has to send the export."""
        local = self.config.local_sites
        return local is not None and site not in local

    def is_elsewhere(self, site: str) -> bool:
        """Return True if the site is remote and its export is missing from the folder."""
        return self.is_remote(site) and not self.exists(f"ledger/{site}.json")

    def key_of(self, site: str) -> str:
        """Return a site's registered Ed25519 key, hex.

        Raises:
            VerificationFailed: ``config.json`` has no key for the site.
        """
        key = self.config.participants.get(site)
        if key is None:
            raise VerificationFailed(f"{site} is not among the participants of config.json")
        return key

    def statement(self, update: AuditedUpdate) -> UpdateStatement:
        """Return the site's signed statement about an accepted update.

        Raises:
            VerificationFailed: the envelope is missing, or differs from the log's digest.
            EnvelopeError: the signature is not by the site's registered key.
        """
        key = self.key_of(update.site)
        if update.envelope is None:
            raise VerificationFailed(f"the log names no envelope for an update of {update.site}")
        name = f"state/updates/{update.envelope}.json"
        if not self.exists(name):
            raise VerificationFailed(f"{name}, which the site signed, is missing")
        envelope = self.data(name)
        if sha256_hex(envelope) != update.envelope:
            raise VerificationFailed(f"{name} does not have the digest in its name")
        return UpdateStatement.from_payload(open_envelope(envelope, UPDATE_TYPE, KeyRing({update.site: key})).payload)

    def kept_model(self, digest: str) -> dict[str, Array]:
        """Return a round's model, by its digest."""
        name = f"state/models/{digest}.safetensors"
        require(self.exists(name), f"{name} is missing")
        require(self.digest(name) == digest, f"{name} does not have the digest in its name")
        return self.model(name)

    def kept_models(self, digests: Sequence[str]) -> list[dict[str, Array]]:
        """Return rounds' models by their digests, for averaging; all must have one layout."""
        models = [self.kept_model(each) for each in digests]
        for digest, model in zip(digests, models, strict=True):
            same = layout_of(model) == layout_of(models[0])
            require(same, f"state/models/{digest}.safetensors has other array names or shapes than in other rounds")
        return models

    def updates_of(self, site: str) -> list[AuditedUpdate]:
        """Return the accepted updates of one site, in the log's order."""
        return [update for update in self.trail.updates if update.site == site]

    def model(self, name: str) -> dict[str, Array]:
        """Return the arrays of a model file."""
        try:
            return decode_arrays(self.data(name), limit=_LIMIT)
        except EnclaveError as error:
            raise VerificationFailed(f"{name}: {error}") from error

    def _ledger(self, site: str) -> SiteLedger | str:
        try:
            return read_ledger(site, self.data(f"ledger/{site}.json"))
        except (EnclaveError, VerificationFailed) as error:
            return str(error)

    def _document(self, name: str, kind: type[_D]) -> _D:
        try:
            return kind.model_validate(parse_json(self.data(name), limit=_LIMIT))
        except (ValidationError, EnclaveError) as error:
            raise VerificationFailed(f"{name}: {explain(error)}") from error


def read_rows(text: str) -> list[dict[str, str]]:
    """Return the rows of a table with a heading; raise :class:`VerificationFailed` for cells beyond the heading."""
    rows = list(csv.DictReader(io.StringIO(text), restkey="beyond the header", restval="", strict=True))
    if any("beyond the header" in row for row in rows):
        raise VerificationFailed("metrics.csv has a row with more cells than the header")
    return rows
