"""A federation folder: the participants with their keys, and the coordinator's own key.

::

    federation.toml            profile, default delta, participants (id, Ed25519 key, node key, certificate), revoked
    coordinator/signing.key    the coordinator's private key, mode 0600
    coordinator/ledger.sqlite  privacy spent by jobs with client-level privacy
    coordinator/draws          secret keys of these jobs, mode 0600
    coordinator/jobs/          the jobs that sites enrolled for, by job id
    coordinator/pki/           the federation's own certificate authority and its servers' certificates
    evaluation.safetensors     optional: a declared PUBLIC evaluation set (x, y)
    sites/<site id>/           local runtimes only: the site's own folder, which a real coordinator never sees
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy
import tomli_w
from pydantic import AfterValidator, Field, model_validator

from aegis.errors import RunFolderError
from coreason_enclave.attestation import AttestationPolicy, AttesterName
from coreason_enclave.attestation.endorsements import EndorsementSettings
from coreason_enclave.configuration import read_toml_as
from coreason_enclave.crypto import Signer, load_or_create_signer
from coreason_enclave.errors import ConfigurationError
from coreason_enclave.ledger import LineageCaps
from coreason_enclave.schemas import (
    Delta,
    Epsilon,
    FormatVersion,
    HexDigest,
    Profile,
    SafeId,
    StrictModel,
    explained,
)
from coreason_enclave.system import replace_file


def _canonical_base64(text: str) -> str:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"expected base64: {error}") from error
    if not data or base64.b64encode(data).decode() != text:
        raise ValueError("expected canonical base64 of at least one byte")
    return text


NodeKey = Annotated[str, Field(max_length=1024), AfterValidator(_canonical_base64)]
"""A Flower node key in the exact spelling of its ``flwr-public-key`` header."""


class ClientBudget(StrictModel):
    """The privacy budget for one site over all jobs with ``client_privacy``: a bound on what released models reveal.

    ``epsilon`` at ``delta`` bound all such jobs together; ``job_epsilon`` and ``job_delta`` bound one job's request. No
    value has a default. The first such job fixes the values in the coordinator's ledger.
    """

    epsilon: Epsilon
    delta: Delta
    job_epsilon: Epsilon
    job_delta: Delta

    @model_validator(mode="after")
    def _job_caps_within_caps(self) -> Self:
        if self.job_epsilon > self.epsilon or self.job_delta > self.delta:
            raise ValueError("job_epsilon and job_delta must be at most epsilon and delta")
        return self

    def caps(self) -> LineageCaps:
        """Return the budget as caps for the coordinator's ledger."""
        return LineageCaps(**self.model_dump())


class FederationConfig(StrictModel):
    """The participants' registry in ``federation.toml``.

    Attributes:
        public_keys: site ids to Ed25519 keys (hex). Empty: the federation has no participants yet.
        disjoint_units: who claims that no person has data at two sites, and on what ground. With the claim, the
            federation's epsilon is the largest of the sites'; without the claim, the sites' guarantees compose.
        node_keys: site ids to Flower node keys, for participants on the network.
        certificates: site ids to the SHA-256 (hex) of the DER of a client certificate, for participants on the network.
        revoked: participants whose messages are refused. They stay listed, since their signatures on earlier updates
            have to remain checkable.
        attester: the kind of evidence about the coordinator's host for sites (``tdx``, ``snp+nvidia``, …); None: no
            evidence. ``unattested`` needs, and is needed by, profile ``unattested``.
        unattested_sites: participants accepted without evidence of their hardware, under profile ``unattested`` only;
            every other participant is refused there.
        attestation: the policy for the sites' evidence; required under profile ``production``.
        endorsements: sources of the vendors' endorsements for the sites' hardware, relative to ``federation.toml``.
        client_privacy: the budget of jobs with client-level privacy; None: no such jobs.
    """

    version: FormatVersion = 1
    profile: Profile
    delta: Delta
    public_keys: dict[SafeId, HexDigest]
    disjoint_units: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    node_keys: dict[SafeId, NodeKey] = Field(default_factory=dict)
    certificates: dict[SafeId, HexDigest] = Field(default_factory=dict)
    revoked: tuple[SafeId, ...] = ()
    attester: AttesterName | None = None
    unattested_sites: tuple[SafeId, ...] = ()
    attestation: AttestationPolicy | None = None
    endorsements: EndorsementSettings = Field(default_factory=EndorsementSettings)
    client_privacy: ClientBudget | None = None

    @model_validator(mode="after")
    def _one_key_each(self) -> Self:
        for field in ("public_keys", "node_keys", "certificates"):
            values: Mapping[str, str] = getattr(self, field)
            if len(set(values.values())) != len(values):
                raise ValueError(f"{field}: two sites share one value: each site needs its own")
            if unknown := sorted(set(values) - set(self.public_keys)):
                raise ValueError(f"{field}: {unknown[0]} is not a participant: public_keys has no entry for it")
        if self.attester == "simulated" and self.profile is not Profile.DEVELOPMENT:
            raise ValueError("attester simulated needs profile development")
        for field in ("revoked", "unattested_sites"):
            if unknown := sorted(set(getattr(self, field)) - set(self.public_keys)):
                raise ValueError(f"{field}: {unknown[0]} is not a participant: public_keys has no entry for it")
        return self

    @model_validator(mode="after")
    def _profile_fits(self) -> Self:
        unattested = self.profile is Profile.UNATTESTED
        if (self.attester == "unattested") != unattested:
            raise ValueError(
                'attester = "unattested" and profile = "unattested" need each other: with both lines, the coordinator '
                "states that its host has no hardware evidence"
            )
        if self.unattested_sites and not unattested:
            raise ValueError("unattested_sites needs profile unattested")
        if unattested and self.attestation is not None:
            raise ValueError(
                "profile unattested appraises no evidence: remove [attestation], or use profile production"
            )
        return self

    def attestation_policy(self) -> AttestationPolicy:
        """Return the policy for the sites' evidence.

        Without an ``[attestation]`` table, a development federation accepts simulated evidence; an unattested
        federation accepts the statements of ``unattested_sites``, and no evidence.

        Raises:
            RunFolderError: a production federation has no policy.
        """
        if self.attestation is not None:
            return self.attestation
        if self.profile is Profile.UNATTESTED:
            return AttestationPolicy.unattested_only()
        if self.profile is Profile.DEVELOPMENT:
            return AttestationPolicy.simulated_only()
        raise RunFolderError("federation.toml has no [attestation] table, which states the evidence sites must provide")

    def accepted_unattested(self) -> Mapping[str, tuple[str, ...]]:
        """Return the Ed25519 key (hex) of each participant that is accepted without evidence, by name."""
        return {site: (self.public_keys[site],) for site in self.unattested_sites}

    def accepting_unattested(self, site_id: str) -> Self:
        """Return the registry with one participant accepted without evidence of its hardware.

        Raises:
            RunFolderError: the profile is another one, or no participant has this name.
        """
        return self._revised(self.model_dump() | {"unattested_sites": tuple(sorted({*self.unattested_sites, site_id}))})

    def admitting(self, site_id: str, *, public_key: str, node_key: str, certificate: str) -> Self:
        """Return the registry with one participant added, or its keys replaced.

        Raises:
            RunFolderError: the site is revoked, or the entry does not fit the registry; the message names the field.
        """
        if site_id in self.revoked:
            raise RunFolderError(f"{site_id} is revoked: remove it from revoked in federation.toml first, if intended")
        document = self.model_dump()
        for field, value in (("public_keys", public_key), ("node_keys", node_key), ("certificates", certificate)):
            document[field] = {**document[field], site_id: value}
        return self._revised(document)

    def revoking(self, site_id: str) -> Self:
        """Return the registry with one participant revoked.

        Raises:
            RunFolderError: no participant has this name.
        """
        return self._revised(self.model_dump() | {"revoked": tuple(sorted({*self.revoked, site_id}))})

    def pinning(self, site_id: str, platforms: Collection[str], *, shared: Collection[str] = ()) -> Self:
        """Return the registry with a participant's machines replaced by ``platforms``.

        Args:
            shared: members of ``platforms`` that another participant may use too.

        Raises:
            RunFolderError: no participant has this name, the site is revoked, or the registry lacks a policy.
        """
        if site_id not in self.public_keys:
            raise RunFolderError(f"{site_id} is not a participant: admit the site first")
        if site_id in self.revoked:
            raise RunFolderError(f"{site_id} is revoked: remove it from revoked in federation.toml first, if intended")
        pinned, document = self.pinned(), self.model_dump()
        document["attestation"] |= {"platforms": {**pinned, site_id: tuple(platforms)}}
        shared_now = document["attestation"]["unsafe_shared_platforms"]
        document["attestation"]["unsafe_shared_platforms"] = (
            *shared_now,
            *(one for one in shared if one not in shared_now),
        )
        return self._revised(document)

    def pinned(self) -> Mapping[str, tuple[str, ...]]:
        """Return the machines of each participant.

        Raises:
            RunFolderError: the registry has no ``[attestation]`` table.
        """
        if self.attestation is None:
            raise RunFolderError("federation.toml has no [attestation] table: add one with the required evidence")
        return self.attestation.platforms

    def _revised(self, document: dict[str, Any]) -> Self:
        with explained(lambda why: RunFolderError(f"the registry would not be valid: {why}")):
            return type(self).model_validate(document)


_LABEL_FORMS = {("int64", 1), ("int64", 2), ("float32", 1), ("float32", 2)}


@dataclass(frozen=True)
class EvaluationSet:
    """Examples declared public: features float32 of shape (n, ...), labels of n rows as their task has them.

    The forms of labels: int64 (n,) for classes, int64 (n, 2) for survival, float32 (n,) for numbers and counts, float32
    (n, k) for several labels; see :class:`coreason_enclave.schemas.Task`.
    """

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[Any]

    @classmethod
    def from_bytes(cls, data: bytes, name: str) -> Self:
        """Read safetensors of ``x`` and ``y``.

        Raises:
            RunFolderError: the data is no evaluation set; the message starts with ``name``.
        """
        try:
            arrays = safetensors.numpy.load(data)
            features, labels = arrays["x"], arrays["y"]
        except (KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
            raise RunFolderError(f"{name} is not an evaluation set (x, y): {error}") from error
        if features.dtype != np.float32 or features.shape[:1] != labels.shape[:1] or not len(labels):
            raise RunFolderError(f"{name} must hold float32 x and y of the same length, at least 1")
        if (str(labels.dtype), labels.ndim) not in _LABEL_FORMS:
            raise RunFolderError(f"{name} must hold y as int64 or float32 in 1 or 2 dimensions, got {labels.dtype}")
        return cls(features, labels)


@dataclass(frozen=True)
class FederationFolder:
    """Paths of one federation, and readers for their content."""

    path: Path

    def create(self, config: FederationConfig) -> None:
        """Create or replace ``federation.toml``, whole or not at all.

        A setup writes this file last: a folder without the file is unfinished. A running gateway reads the new file at
        its next request.
        """
        path = self.registry
        # Leave defaults out: below an empty table or list, an operator could not add the same name by hand.
        document = {"version": config.version, **config.model_dump(mode="json", exclude_defaults=True)}
        replace_file(path, tomli_w.dumps(document).encode())

    @property
    def registry(self) -> Path:
        """Path of ``federation.toml``."""
        return self.path / "federation.toml"

    @property
    def coordinator(self) -> Path:
        """The coordinator's folder: keys, certificates, and the files of gateway and SuperLink."""
        return self.path / "coordinator"

    @property
    def exists(self) -> bool:
        """True if the folder is complete."""
        return self.registry.exists()

    def config(self) -> FederationConfig:
        """Read ``federation.toml``.

        Raises:
            RunFolderError: the file is missing or invalid.
        """
        path = self.registry
        try:
            return read_toml_as(path, FederationConfig)
        except ConfigurationError as error:
            before = f"{self.path} is not a federation folder: " if isinstance(error.__cause__, OSError) else ""
            raise RunFolderError(f"{before}{error}") from error

    def signer(self) -> Signer:
        """Return the coordinator's key pair, created on first use."""
        return load_or_create_signer(self.coordinator / "signing.key")

    def site_folders(self) -> list[Path]:
        """Return the folders of the sites on this machine, by name."""
        return sorted(path.parent for path in self.path.glob("sites/*/site.toml"))

    def save_evaluation_set(self, evaluation: EvaluationSet) -> None:
        """Save the declared public evaluation set."""
        arrays: dict[str, npt.NDArray[Any]] = {"x": evaluation.features, "y": evaluation.labels}
        safetensors.numpy.save_file(arrays, self.path / "evaluation.safetensors")

    def evaluation_data(self) -> bytes | None:
        """Return the bytes of the declared public evaluation set; None, if the federation does not measure utility.

        Raises:
            RunFolderError: the file cannot be read.
        """
        path = self.path / "evaluation.safetensors"
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RunFolderError(f"{path} cannot be read: {error.strerror}") from error

    def evaluation_set(self) -> EvaluationSet | None:
        """Return the declared public evaluation set; None, if the federation does not measure utility.

        Raises:
            RunFolderError: the file cannot be read, or is invalid.
        """
        data = self.evaluation_data()
        return None if data is None else EvaluationSet.from_bytes(data, str(self.path / "evaluation.safetensors"))
