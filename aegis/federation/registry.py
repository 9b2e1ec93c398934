"""A federation folder: who takes part, with which keys, and the coordinator's own key.

::

    federation.toml            profile, default delta, participants (id, Ed25519 key, node key, certificate), revoked
    coordinator/signing.key    the coordinator's private key, mode 0600
    coordinator/ledger.sqlite  what jobs with client-level privacy spent; their keys are in coordinator/draws, mode 0600
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
from pydantic import AfterValidator, Field, ValidationError, model_validator

from aegis.errors import RunFolderError
from coreason_enclave.attestation.attestation_policy import AttestationPolicy, AttesterName
from coreason_enclave.attestation.endorsements.endorsement_settings import EndorsementSettings
from coreason_enclave.configuration import read_toml_as
from coreason_enclave.crypto.signing import Signer, load_or_create_signer
from coreason_enclave.errors import ConfigurationError
from coreason_enclave.ledger import LineageCaps
from coreason_enclave.policy import Profile
from coreason_enclave.schemas import Delta, Epsilon, FormatVersion, HexDigest, SafeId, StrictModel, explain
from coreason_enclave.system.files import replace_file

__all__ = ["ClientBudget", "EvaluationSet", "FederationConfig", "FederationFolder", "NodeKey"]


def _canonical_base64(text: str) -> str:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"expected base64: {error}") from error
    if not data or base64.b64encode(data).decode() != text:
        raise ValueError("expected the one base64 spelling of at least one byte")
    return text


NodeKey = Annotated[str, Field(max_length=1024), AfterValidator(_canonical_base64)]
"""A Flower node key exactly as its ``flwr-public-key`` header spells it."""


class ClientBudget(StrictModel):
    """The most that released models may ever tell of one site, over all jobs with ``client_privacy``; no defaults.

    ``epsilon`` at ``delta`` over all of them; ``job_epsilon`` and ``job_delta`` are the most that one may ask for. The
    first such job fixes them in the coordinator's ledger.
    """

    epsilon: Epsilon
    delta: Delta
    job_epsilon: Epsilon
    job_delta: Delta

    @model_validator(mode="after")
    def _jobs_fit(self) -> Self:
        if self.job_epsilon > self.epsilon or self.job_delta > self.delta:
            raise ValueError("job_epsilon and job_delta must be at most epsilon and delta")
        return self

    def caps(self) -> LineageCaps:
        """As the coordinator's ledger keeps them."""
        return LineageCaps(**self.model_dump())


class FederationConfig(StrictModel):
    """``federation.toml``: the participants' registry.

    Attributes:
        public_keys: site ids to Ed25519 keys (hex). May be empty: then nobody takes part yet.
        disjoint_units: who claims that no person is at two sites, and on what ground. Only under such a claim is the
            federation's epsilon the largest of the sites'; without one the sites' guarantees compose.
        node_keys: site ids to Flower node keys, for participants that come over the network.
        certificates: site ids to the SHA-256 (hex) of their client certificate's DER, likewise.
        revoked: participants that nothing is accepted from any more. They stay listed: their signatures on earlier
            updates have to remain checkable.
        attester: what the coordinator's host proves itself with to sites (``tdx``, ``snp+nvidia``, …); None: nothing.
        attestation: what sites have to prove; needed under profile ``production``.
        endorsements: where vendors' word on the sites' hardware is found, relative to ``federation.toml``.
        client_privacy: what jobs with client-level privacy may spend; None: there are none.
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
    attestation: AttestationPolicy | None = None
    endorsements: EndorsementSettings = Field(default_factory=EndorsementSettings)
    client_privacy: ClientBudget | None = None

    @model_validator(mode="after")
    def _one_key_each(self) -> Self:
        for field in ("public_keys", "node_keys", "certificates"):
            values: Mapping[str, str] = getattr(self, field)
            if len(set(values.values())) != len(values):
                raise ValueError(f"{field}: two sites share one: each needs its own")
            if strangers := sorted(set(values) - set(self.public_keys)):
                raise ValueError(f"{field}: {strangers[0]} is no participant: it has no entry in public_keys")
        if self.attester == "simulated" and self.profile is not Profile.DEVELOPMENT:
            raise ValueError("attester simulated needs profile development")
        if strangers := sorted(set(self.revoked) - set(self.public_keys)):
            raise ValueError(f"revoked: {strangers[0]} is no participant: it has no entry in public_keys")
        return self

    def attestation_policy(self) -> AttestationPolicy:
        """What sites have to prove; a development federation without a table of its own accepts simulated evidence.

        Raises:
            RunFolderError: a production federation does not say.
        """
        if self.attestation is not None:
            return self.attestation
        if self.profile is Profile.DEVELOPMENT:
            return AttestationPolicy.simulated_only()
        raise RunFolderError("federation.toml has no [attestation] table: it has to say what sites must prove")

    def admitting(self, site_id: str, *, public_key: str, node_key: str, certificate: str) -> Self:
        """This registry with one participant added, or its keys replaced.

        Raises:
            RunFolderError: the site is revoked, or the entry does not fit the registry; the message names the field.
        """
        if site_id in self.revoked:
            raise RunFolderError(f"{site_id} is revoked: take it off that list first, if that is what you mean")
        document = self.model_dump()
        for field, value in (("public_keys", public_key), ("node_keys", node_key), ("certificates", certificate)):
            document[field] = {**document[field], site_id: value}
        return self._revised(document)

    def revoking(self, site_id: str) -> Self:
        """This registry with one participant revoked; raises :class:`RunFolderError` if there is none of that name."""
        return self._revised(self.model_dump() | {"revoked": tuple(sorted({*self.revoked, site_id}))})

    def pinning(self, site_id: str, platforms: Collection[str], *, shared: Collection[str] = ()) -> Self:
        """This registry with these machines for one participant, in place of those that were listed.

        Args:
            shared: those of them that may be another participant's, too.

        Raises:
            RunFolderError: there is none of that name, it is revoked, or there is no policy to write them into.
        """
        if site_id not in self.public_keys:
            raise RunFolderError(f"{site_id} is no participant: admit it first")
        if site_id in self.revoked:
            raise RunFolderError(f"{site_id} is revoked: take it off that list first, if that is what you mean")
        pinned, document = self.pinned(), self.model_dump()
        document["attestation"] |= {"platforms": {**pinned, site_id: tuple(platforms)}}
        said = document["attestation"]["unsafe_shared_platforms"]
        document["attestation"]["unsafe_shared_platforms"] = (*said, *(one for one in shared if one not in said))
        return self._revised(document)

    def pinned(self) -> Mapping[str, tuple[str, ...]]:
        """The machines of each participant; raises :class:`RunFolderError` where no table could hold any."""
        if self.attestation is None:
            raise RunFolderError("federation.toml has no [attestation] table: write down first what sites must prove")
        return self.attestation.platforms

    def _revised(self, document: dict[str, Any]) -> Self:
        try:
            return type(self).model_validate(document)
        except ValidationError as error:
            raise RunFolderError(f"the registry would not be valid: {explain(error)}") from error


@dataclass(frozen=True)
class EvaluationSet:
    """Examples that were declared public: features float32 of shape (n, ...), labels int64 of shape (n,)."""

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]

    @classmethod
    def from_bytes(cls, data: bytes, name: str) -> Self:
        """Read safetensors of ``x`` and ``y``; raises :class:`RunFolderError`, which says ``name``."""
        try:
            arrays = safetensors.numpy.load(data)
            features, labels = arrays["x"], arrays["y"]
        except (KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
            raise RunFolderError(f"{name} is not an evaluation set (x, y): {error}") from error
        if features.dtype != np.float32 or labels.dtype != np.int64 or features.shape[:1] != labels.shape:
            raise RunFolderError(f"{name} must hold float32 x and int64 y of the same length")
        return cls(features, labels)


@dataclass(frozen=True)
class FederationFolder:
    """Paths of one federation, and what is read from them."""

    path: Path

    def create(self, config: FederationConfig) -> None:
        """Write ``federation.toml``, or replace it, whole or not at all.

        It is written last, so a folder without it is unfinished. A running gateway follows it at its next request.
        """
        path = self.registry
        # Defaults are left out: a table or list that stands there empty could not be written below it by hand.
        document = {"version": config.version, **config.model_dump(mode="json", exclude_defaults=True)}
        replace_file(path, tomli_w.dumps(document).encode())

    @property
    def registry(self) -> Path:
        """``federation.toml``."""
        return self.path / "federation.toml"

    @property
    def coordinator(self) -> Path:
        """The folder of what the coordinator keeps: keys, certificates, the gateway's and SuperLink's files."""
        return self.path / "coordinator"

    @property
    def exists(self) -> bool:
        """Whether the folder is complete."""
        return self.registry.exists()

    def config(self) -> FederationConfig:
        """Read ``federation.toml``; raises :class:`RunFolderError`."""
        path = self.registry
        try:
            return read_toml_as(path, FederationConfig)
        except ConfigurationError as error:
            before = f"{self.path} is not a federation folder: " if isinstance(error.__cause__, OSError) else ""
            raise RunFolderError(f"{before}{error}") from error

    def signer(self) -> Signer:
        """The coordinator's key pair, made on first use."""
        return load_or_create_signer(self.coordinator / "signing.key")

    def site_folders(self) -> list[Path]:
        """The folders of sites that are local to this machine, by name."""
        return sorted(path.parent for path in self.path.glob("sites/*/site.toml"))

    def save_evaluation_set(self, evaluation: EvaluationSet) -> None:
        """Keep the declared public evaluation set."""
        arrays: dict[str, npt.NDArray[Any]] = {"x": evaluation.features, "y": evaluation.labels}
        safetensors.numpy.save_file(arrays, self.path / "evaluation.safetensors")

    def evaluation_data(self) -> bytes | None:
        """The bytes of the declared public evaluation set, or None: then utility is not measured."""
        path = self.path / "evaluation.safetensors"
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RunFolderError(f"{path} cannot be read: {error.strerror}") from error

    def evaluation_set(self) -> EvaluationSet | None:
        """The declared public evaluation set, or None: then utility is not measured."""
        data = self.evaluation_data()
        return None if data is None else EvaluationSet.from_bytes(data, str(self.path / "evaluation.safetensors"))
