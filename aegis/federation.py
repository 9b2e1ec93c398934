"""A federation folder: who takes part, with which keys, and the coordinator's own key.

::

    federation.toml            profile, default delta, participants (site id, Ed25519 key)
    coordinator/signing.key    the coordinator's private key, mode 0600
    evaluation.safetensors     optional: a declared PUBLIC evaluation set (x, y)
    sites/<site id>/           local runtimes only: the site's own folder, which a real coordinator never sees
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy
import tomli_w
from pydantic import Field, ValidationError, model_validator

from aegis.errors import RunFolderError
from coreason_enclave.keys import Signer, load_or_create_signer
from coreason_enclave.policy import Profile
from coreason_enclave.schemas import Delta, FormatVersion, HexDigest, SafeId, StrictModel, explain

__all__ = ["EvaluationSet", "FederationConfig", "FederationFolder"]


class FederationConfig(StrictModel):
    """``federation.toml``: the participants' registry.

    Attributes:
        public_keys: site ids to Ed25519 keys (hex).
        disjoint_units: who claims that no person is at two sites, and on what ground. Only under such a claim is the
            federation's epsilon the largest of the sites'; without one the sites' guarantees compose.
    """

    version: FormatVersion = 1
    profile: Profile
    delta: Delta
    public_keys: Annotated[dict[SafeId, HexDigest], Field(min_length=1)]
    disjoint_units: Annotated[str, Field(min_length=1, max_length=500)] | None = None

    @model_validator(mode="after")
    def _one_key_each(self) -> Self:
        if len(set(self.public_keys.values())) != len(self.public_keys):
            raise ValueError("public_keys: two sites share one key: each needs its own")
        return self


@dataclass(frozen=True)
class EvaluationSet:
    """Examples that were declared public: features float32 of shape (n, ...), labels int64 of shape (n,)."""

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class FederationFolder:
    """Paths of one federation, and what is read from them."""

    path: Path

    def found(self, config: FederationConfig) -> None:
        """Write ``federation.toml``; it is written last, so a folder without it is unfinished."""
        (self.path / "federation.toml").write_bytes(
            tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)).encode()
        )

    @property
    def is_founded(self) -> bool:
        """Whether the folder is complete."""
        return (self.path / "federation.toml").exists()

    def config(self) -> FederationConfig:
        """Read ``federation.toml``; raises :class:`RunFolderError`."""
        path = self.path / "federation.toml"
        try:
            return FederationConfig.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise RunFolderError(f"{self.path} is not a federation folder: {path.name}: {error.strerror}") from error
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise RunFolderError(f"{path} is not TOML: {error}") from error
        except ValidationError as error:
            raise RunFolderError(f"{path}: {explain(error)}") from error

    def signer(self) -> Signer:
        """The coordinator's key pair, made on first use."""
        return load_or_create_signer(self.path / "coordinator" / "signing.key")

    def site_folders(self) -> list[Path]:
        """The folders of sites that are local to this machine, by name."""
        return sorted(path.parent for path in self.path.glob("sites/*/site.toml"))

    def save_evaluation_set(self, evaluation: EvaluationSet) -> None:
        """Keep the declared public evaluation set."""
        arrays: dict[str, npt.NDArray[Any]] = {"x": evaluation.features, "y": evaluation.labels}
        safetensors.numpy.save_file(arrays, self.path / "evaluation.safetensors")

    def evaluation_set(self) -> EvaluationSet | None:
        """The declared public evaluation set, or None: then utility is not measured."""
        path = self.path / "evaluation.safetensors"
        if not path.exists():
            return None
        try:
            arrays = safetensors.numpy.load_file(path)
            features, labels = arrays["x"], arrays["y"]
        except (OSError, KeyError, safetensors.SafetensorError) as error:
            raise RunFolderError(f"{path} is not an evaluation set (x, y): {error}") from error
        if features.dtype != np.float32 or labels.dtype != np.int64 or len(features) != len(labels):
            raise RunFolderError(f"{path} must hold float32 x and int64 y of the same length")
        return EvaluationSet(features, labels)
