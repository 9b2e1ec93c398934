"""What a run folder holds, read strictly and without writing anything."""

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
from aegis.runs.folder import RunFolder, installed_versions
from aegis.runs.pins import code_in_use
from aegis.stores.run_state import RunState
from aegis.verification.audit_trail import AuditedUpdate, AuditTrail, read_trail
from aegis.verification.findings import require
from aegis.verification.ledgers import SiteLedger, read_ledger
from coreason_enclave.crypto.encoding import parse_json, sha256_hex
from coreason_enclave.crypto.envelope import KeyRing, open_envelope
from coreason_enclave.crypto.hash_log import verify_lines
from coreason_enclave.errors import EnclaveError
from coreason_enclave.policy import Profile
from coreason_enclave.schemas import FederationJob, HexDigest, Provenance, SafeId, explain
from coreason_enclave.wire.documents import UPDATE_TYPE, UpdateStatement, parse_statement
from coreason_enclave.wire.updates import Array, decode_arrays, layout_of

__all__ = ["EXPECTED_FILES", "ClientStatement", "Configuration", "Records", "StatedOutcome", "read_rows"]

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
    """The part of a document that is read; what else a run wrote down stands beside it."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class _Options(_RecordModel):
    unsafe_seed: int | None
    simulated_attackers: int


class Configuration(_RecordModel):
    """``config.json``: how the run says that it was run.

    Attributes:
        disjoint_units: who claims that no unit is at two sites, and on what ground.
        evaluation_set: SHA-256 of the declared public evaluation set; None where utility was not measured.
        code, versions: what made the numbers.
        local_sites: the sites on the coordinator's host, whose ledgers a run exports; left out, all of them.
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
        """The sites that a demonstration says a simulated attacker took over: the first by name."""
        if self.profile != Profile.DEVELOPMENT:
            return frozenset()
        return frozenset(sorted(self.participants)[: self.options.simulated_attackers])


class ClientStatement(_RecordModel):
    """What ``outcome.json`` says of client-level privacy."""

    unit: str
    epsilon: float
    delta: float
    noise_multiplier: float
    clip_norm: float
    sample_rate: float


class AcrossSites(_RecordModel):
    """What ``outcome.json`` says of the whole federation: see :func:`aegis.coordination.privacy_spend.across_sites`."""

    epsilon: float | None
    delta: float | None
    rule: str
    claimed_disjoint_by: str | None


class StatedOutcome(_RecordModel):
    """``outcome.json``: what the run claims to have achieved."""

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
    """A run folder's documents, each read once; an unusable one raises :class:`VerificationFailed` naming it."""

    folder: Path

    def data(self, name: str) -> bytes:
        """A file's bytes."""
        try:
            return (self.folder / name).read_bytes()
        except PermissionError as error:
            raise RunFolderError(f"{self.folder / name} cannot be read: {error.strerror}: ask for access") from error
        except OSError as error:
            raise VerificationFailed(f"{name} cannot be read: {error.strerror}") from error

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        try:
            return (self.folder / name).is_file()
        except PermissionError as error:
            raise RunFolderError(f"{self.folder / name} cannot be read: {error.strerror}: ask for access") from error

    @cached_property
    def audit(self) -> bytes:
        """The audit log, once its chain holds."""
        data = self.data("audit.jsonl")
        verify_lines(data)
        return data

    @cached_property
    def trail(self) -> AuditTrail:
        """The story that the audit log tells."""
        return read_trail(self.audit)

    @cached_property
    def job(self) -> FederationJob:
        """The job as ordered."""
        self.data("job.yaml")  # one that may not be read is another matter than one that holds no job
        return RunFolder(self.folder).job()

    @cached_property
    def config(self) -> Configuration:
        """``config.json``."""
        return self._document("config.json", Configuration)

    @cached_property
    def outcome(self) -> StatedOutcome:
        """``outcome.json``."""
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
        """By site that an update was admitted of: its verified ledger, or what is wrong with it."""
        return {site: self._ledger(site) for site in sorted({update.site for update in self.trail.updates})}

    def digest(self, name: str) -> str:
        """A file's SHA-256, which is computed once."""
        if name not in self._digests:
            self._digests[name] = sha256_hex(self.data(name))
        return self._digests[name]

    @cached_property
    def _digests(self) -> dict[str, str]:
        return {}

    @cached_property
    def is_of_this_build(self) -> bool:
        """Whether this very code, over these very libraries, made the run's numbers."""
        return self.config.code == code_in_use() and self.config.versions == installed_versions()

    def is_remote(self, site: str) -> bool:
        """Whether a site keeps its ledger on its own host, so that its export comes from there."""
        local = self.config.local_sites
        return local is not None and site not in local

    def is_elsewhere(self, site: str) -> bool:
        """Whether a remote site's export was not put here."""
        return self.is_remote(site) and not self.exists(f"ledger/{site}.json")

    def key_of(self, site: str) -> str:
        """A site's registered Ed25519 key, hex.

        Raises:
            VerificationFailed: ``config.json`` has no key for the site.
        """
        key = self.config.participants.get(site)
        if key is None:
            raise VerificationFailed(f"{site} is not among the participants of config.json")
        return key

    def statement(self, update: AuditedUpdate) -> UpdateStatement:
        """What the site signed of an admitted update.

        Raises:
            VerificationFailed: the envelope is missing, or not the one that the log names.
            EnvelopeError: it is not signed by the site's registered key.
        """
        key = self.key_of(update.site)
        if update.envelope is None:
            raise VerificationFailed("the log does not say which envelope the site signed")
        name = f"state/updates/{update.envelope}.json"
        if not self.exists(name):
            raise VerificationFailed(f"{name}, which the site signed, is missing")
        envelope = self.data(name)
        if sha256_hex(envelope) != update.envelope:
            raise VerificationFailed(f"{name} does not have the digest that it is named by")
        return parse_statement(open_envelope(envelope, UPDATE_TYPE, KeyRing({update.site: key})).payload)

    def kept_model(self, digest: str) -> dict[str, Array]:
        """A round's model, by its digest."""
        name = f"state/models/{digest}.safetensors"
        require(self.exists(name), f"{name} is missing")
        require(self.digest(name) == digest, f"{name} does not have the digest that it is named by")
        return self.model(name)

    def kept_models(self, digests: Sequence[str]) -> list[dict[str, Array]]:
        """Rounds' models by their digests, to be averaged: of one layout."""
        models = [self.kept_model(each) for each in digests]
        for digest, model in zip(digests, models, strict=True):
            same = layout_of(model) == layout_of(models[0])
            require(same, f"state/models/{digest}.safetensors has other arrays than the models of other rounds")
        return models

    def updates_of(self, site: str) -> list[AuditedUpdate]:
        """The updates of one site that the log admitted, in its order."""
        return [update for update in self.trail.updates if update.site == site]

    def model(self, name: str) -> dict[str, Array]:
        """The arrays of a model file."""
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
        except ValidationError as error:
            raise VerificationFailed(f"{name}: {explain(error)}") from error
        except EnclaveError as error:
            raise VerificationFailed(f"{name}: {error}") from error


def read_rows(text: str) -> list[dict[str, str]]:
    """The rows of a table with a heading; cells beyond the heading are refused."""
    rows = list(csv.DictReader(io.StringIO(text), restkey="beyond the heading", restval="", strict=True))
    if any("beyond the heading" in row for row in rows):
        raise VerificationFailed("metrics.csv has a line with more cells than its heading")
    return rows
