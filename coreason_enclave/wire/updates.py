"""The types of an update: each step changes the type, so no code can skip a step.

1. ``TrainedUpdate``: made by the trainer
2. ``ReleasableUpdate``: let through by the airlock
3. a sealed envelope
4. ``AdmittedUpdate``: accepted by the coordinator's admission, input of the aggregator

Arrays travel in safetensors format, never in pickle, which runs code on reading.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from coreason_enclave.accounting import Event
from coreason_enclave.crypto import sha256_hex
from coreason_enclave.errors import EnvelopeError, Reason
from coreason_enclave.schemas import Provenance

Array = npt.NDArray[np.float32]
Arrays = Mapping[str, Array]
"""Parameter names (those of a clean ``state_dict``) to float32 arrays."""

Layout = Mapping[str, tuple[int, ...]]
"""Parameter names to shapes: the required form of an update for a given base model."""


@dataclass(frozen=True)
class TrainedUpdate:
    """A trainer's result: new weights minus base weights, and the privacy event that **actually** ran."""

    arrays: Arrays
    event: Event
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class ReleasableUpdate:
    """An update let through by the airlock. Only this type can be signed. ``payload`` holds the safetensors form."""

    payload: bytes
    digest: str
    event: Event
    metrics: Mapping[str, float]


WIRE_RECORD = "aegis"
"""Name of the record in which transports (Flower's records) hold a message's three byte strings."""


@dataclass(frozen=True)
class SealedMessage:
    """A message on the wire: a DSSE envelope, and the byte strings that belong to the envelope's payload.

    ``arrays`` holds encrypted safetensors, and stays empty in messages without a model (invitation, enrolment). Only
    orders have a ``roll_call``. The payload names both by SHA-256: the roll-call's bytes, and the arrays before
    encryption.
    """

    envelope: bytes
    arrays: bytes = b""
    roll_call: bytes = b""

    def to_fields(self) -> dict[str, bytes]:
        """Return the fields of a transport's record, named :data:`WIRE_RECORD`."""
        return {"envelope": self.envelope, "arrays": self.arrays, "roll_call": self.roll_call}

    @classmethod
    def from_fields(cls, fields: Mapping[str, object] | None) -> SealedMessage:
        """Read a transport's record; raise :class:`EnvelopeError` unless it holds exactly three byte strings."""
        if fields is None or fields.keys() != {"envelope", "arrays", "roll_call"}:
            raise EnvelopeError("the message must have exactly the fields envelope, arrays and roll_call")
        envelope, arrays, roll_call = fields["envelope"], fields["arrays"], fields["roll_call"]
        if not isinstance(envelope, bytes) or not isinstance(arrays, bytes) or not isinstance(roll_call, bytes):
            raise EnvelopeError("envelope, arrays and roll_call must be bytes")
        return cls(envelope, arrays, roll_call)


@dataclass(frozen=True)
class AdmittedUpdate:
    """An authentic update for this very round, with the right shape and within the plan."""

    site_id: str
    arrays: Arrays
    digest: str
    event: Event
    provenance: Provenance
    num_examples: int | None = None


def encode_arrays(arrays: Arrays) -> bytes:
    """Serialise to safetensors; equal arrays always give equal bytes.

    >>> decode_arrays(encode_arrays({"w": np.ones(2, np.float32)}), limit=1000)["w"]
    array([1., 1.], dtype=float32)
    """
    return safetensors.numpy.save({name: np.asarray(arrays[name], order="C") for name in sorted(arrays)})


def decode_arrays(data: bytes, *, limit: int) -> dict[str, Array]:
    """Parse at most ``limit`` bytes of safetensors with float32 arrays only.

    Raises:
        EnvelopeError: oversized, malformed, or with arrays of another type.
    """
    if len(data) > limit:
        raise EnvelopeError(f"arrays of {len(data)} bytes exceed the limit of {limit}", reason=Reason.OVERSIZED)
    try:
        arrays = safetensors.numpy.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise EnvelopeError(f"not a safetensors document: {error}") from error
    foreign = sorted(name for name, array in arrays.items() if array.dtype != np.float32)
    if foreign:
        raise EnvelopeError(f"arrays must be float32, but {', '.join(foreign[:5])} is not")
    return arrays


def layout_of(arrays: Arrays) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of ``arrays``."""
    return {name: array.shape for name, array in arrays.items()}


def immutable(arrays: Arrays) -> Arrays:
    """Return a read-only copy of ``arrays``; each array's memory is a byte string."""
    return MappingProxyType(
        {name: np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape) for name, array in arrays.items()}
    )


_CORRECTION = "correction/"


def with_correction(model: Arrays, correction: Arrays) -> dict[str, Array]:
    """Return the contents of a SCAFFOLD order as one document: the model, and ``correction/<name>`` for each tensor.

    One document has one digest, so every binding to the base model covers the correction, too.
    """
    return {**model, **{f"{_CORRECTION}{name}": array for name, array in correction.items()}}


def split_correction(arrays: Arrays) -> tuple[dict[str, Array], dict[str, Array]]:
    """Split a document of :func:`with_correction` into model and correction (empty if absent)."""
    model = {name: array for name, array in arrays.items() if not name.startswith(_CORRECTION)}
    return model, {name.removeprefix(_CORRECTION): array for name, array in arrays.items() if name not in model}


def model_digest(arrays: Arrays) -> str:
    """Return the SHA-256 (hex) of a model's safetensors bytes: its identity in orders, envelopes and reports."""
    return sha256_hex(encode_arrays(arrays))
