"""An update changes its type at every door it passes, so that no step can be skipped.

``TrainedUpdate`` (what the trainer made) → ``ReleasableUpdate`` (what the airlock let through) → a sealed
envelope → ``AdmittedUpdate`` (what the coordinator's admission accepted) → the aggregator. Arrays travel as
safetensors, never as pickle, which runs code when it is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from coreason_enclave.accounting.events import Event
from coreason_enclave.crypto.encoding import sha256_hex
from coreason_enclave.errors import EnvelopeError, Reason
from coreason_enclave.schemas import Provenance

__all__ = [
    "WIRE_RECORD",
    "AdmittedUpdate",
    "Arrays",
    "Layout",
    "ReleasableUpdate",
    "SealedMessage",
    "TrainedUpdate",
    "decode_arrays",
    "encode_arrays",
    "immutable",
    "layout_of",
    "model_digest",
    "split_correction",
    "with_correction",
]

Array = npt.NDArray[np.float32]
Arrays = Mapping[str, Array]
"""Parameter names (those of a clean ``state_dict``) to float32 arrays."""

Layout = Mapping[str, tuple[int, ...]]
"""Parameter names to shapes: what an update for a given base model must look like."""


@dataclass(frozen=True)
class TrainedUpdate:
    """What a trainer returns: new weights minus base weights, and the privacy event that **was** run."""

    arrays: Arrays
    event: Event
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class ReleasableUpdate:
    """What the airlock let through; the only thing that can be signed. ``payload`` is the safetensors form."""

    payload: bytes
    digest: str
    event: Event
    metrics: Mapping[str, float]


WIRE_RECORD = "aegis"
"""The name under which carriers (Flower's records) hold a message's two byte strings."""


@dataclass(frozen=True)
class SealedMessage:
    """Bytes on the wire: a DSSE envelope, and what its payload names by SHA-256.

    ``arrays`` are safetensors (empty where there is no model: an invitation, an enrolment); ``roll_call`` goes with
    orders alone.
    """

    envelope: bytes
    arrays: bytes = b""
    roll_call: bytes = b""

    def to_fields(self) -> dict[str, bytes]:
        """As a carrier's record, named :data:`WIRE_RECORD`."""
        return {"envelope": self.envelope, "arrays": self.arrays, "roll_call": self.roll_call}

    @classmethod
    def from_fields(cls, fields: Mapping[str, object] | None) -> SealedMessage:
        """Read a carrier's record; anything but these three byte strings raises :class:`EnvelopeError`."""
        if fields is None or fields.keys() != {"envelope", "arrays", "roll_call"}:
            raise EnvelopeError("the message carries no sealed envelope with arrays and roll_call")
        envelope, arrays, roll_call = fields["envelope"], fields["arrays"], fields["roll_call"]
        if not isinstance(envelope, bytes) or not isinstance(arrays, bytes) or not isinstance(roll_call, bytes):
            raise EnvelopeError("envelope, arrays and roll_call must be bytes")
        return cls(envelope, arrays, roll_call)


@dataclass(frozen=True)
class AdmittedUpdate:
    """An authentic update for this very round, of the right shape, within the plan."""

    site_id: str
    arrays: Arrays
    digest: str
    event: Event
    provenance: Provenance
    num_examples: int | None = None


def encode_arrays(arrays: Arrays) -> bytes:
    """Serialise to safetensors; the same arrays always give the same bytes.

    >>> decode_arrays(encode_arrays({"w": np.ones(2, np.float32)}), limit=1000)["w"]
    array([1., 1.], dtype=float32)
    """
    return safetensors.numpy.save({name: np.asarray(arrays[name], order="C") for name in sorted(arrays)})


def decode_arrays(data: bytes, *, limit: int) -> dict[str, Array]:
    """Parse at most ``limit`` bytes of safetensors holding float32 arrays only; raises :class:`EnvelopeError`."""
    if len(data) > limit:
        raise EnvelopeError(f"arrays of {len(data)} bytes exceed the limit of {limit}", reason=Reason.OVERSIZED)
    try:
        arrays = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise EnvelopeError(f"not a safetensors document: {error}") from error
    foreign = sorted(name for name, array in arrays.items() if array.dtype != np.float32)
    if foreign:
        raise EnvelopeError(f"arrays must be float32, which {', '.join(foreign[:5])} is not")
    return arrays


def layout_of(arrays: Arrays) -> dict[str, tuple[int, ...]]:
    """Names and shapes of ``arrays``."""
    return {name: array.shape for name, array in arrays.items()}


def immutable(arrays: Arrays) -> Arrays:
    """A copy of ``arrays`` that nothing can write into: their memory is a byte string."""
    return MappingProxyType(
        {name: np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape) for name, array in arrays.items()}
    )


_CORRECTION = "correction/"


def with_correction(model: Arrays, correction: Arrays) -> dict[str, Array]:
    """What goes with an order of a SCAFFOLD job, as one document: the model, and ``correction/<name>`` for each tensor.

    One document has one digest, so whatever is bound to the base model is bound to the correction with it.
    """
    return {**model, **{f"{_CORRECTION}{name}": array for name, array in correction.items()}}


def split_correction(arrays: Arrays) -> tuple[dict[str, Array], dict[str, Array]]:
    """Model and correction of such a document; the latter is empty where there is none."""
    model = {name: array for name, array in arrays.items() if not name.startswith(_CORRECTION)}
    return model, {name.removeprefix(_CORRECTION): array for name, array in arrays.items() if name not in model}


def model_digest(arrays: Arrays) -> str:
    """SHA-256 (hex) of a model's safetensors bytes: its identity in orders, envelopes and reports."""
    return sha256_hex(encode_arrays(arrays))
