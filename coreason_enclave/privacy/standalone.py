"""The training scope of a reservation made outside a session; its random key is injected, or fresh and never stored.

Noise shared by two releases cancels out of their difference.

- Under a fresh key, no two trainings share noise.
- Under an injected key, draws are named after the schedule, every row and each row's unit. Two trainings therefore
  share noise only if they are the same training.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset, TensorDataset

from coreason_enclave.crypto import Keystream, frame
from coreason_enclave.errors import ConfigurationError
from coreason_enclave.ledger import NoiseSource, Reservation
from coreason_enclave.privacy.scope import TrainingScope
from coreason_enclave.privacy.step_gate import StepGate
from coreason_enclave.schemas import PrivacyConfig


@dataclass(frozen=True, kw_only=True)
class ExperimentScope(TrainingScope):
    """A scope outside a session.

    Attributes:
        key: 32 bytes, fresh or injected.
        name: names the draws, together with the rows: 64 hex digits.
    """

    key: bytes
    name: str


def standalone_key(unsafe_seed: bytes | None) -> bytes:
    """Return a fresh key, or the injected key; call before any reservation.

    Raises:
        ConfigurationError: the injected seed does not have exactly 32 bytes.
    """
    if unsafe_seed is not None and len(unsafe_seed) != 32:
        raise ConfigurationError(f"an injected seed must have exactly 32 bytes, got {len(unsafe_seed)}")
    return secrets.token_bytes(32) if unsafe_seed is None else unsafe_seed


def standalone_scope(
    config: PrivacyConfig,
    reservation: Reservation,
    *,
    key: bytes,
    name: str,
    nominal_units: int,
    unit_of_row: npt.NDArray[Any] | None,
) -> ExperimentScope:
    """Return the scope of ``reservation``, to enter while a guard is made; ``key`` and ``name`` determine its draws."""
    gate = StepGate(reservation.step_limit, reservation.target_epsilon)
    return ExperimentScope(
        config=config,
        requested=config,
        reservation=reservation,
        gate=gate,
        keystream=_keystream(key, name, ""),
        nominal_units=nominal_units,
        unit_of_row=unit_of_row,
        drift=None,
        key=key,
        name=name,
    )


def over_rows(scope: TrainingScope, dataset: Dataset[Any]) -> TrainingScope:
    """Return the scope with draws named after the rows as well; without an injected key, return it unchanged."""
    if not isinstance(scope, ExperimentScope) or scope.reservation.noise_source is not NoiseSource.UNSAFE_SEEDED:
        return scope
    return replace(scope, keystream=_keystream(scope.key, scope.name, _digest(dataset, scope.unit_of_row)))


def _keystream(key: bytes, name: str, rows: str) -> Keystream:
    return Keystream(key, job_digest=name, round_number=1, base_model_digest="", dataset_digest=rows)


def _digest(dataset: Dataset[Any], unit_of_row: npt.NDArray[Any] | None) -> str:
    """Return SHA-256 (hex) of all rows and their unit ids."""
    rows = hashlib.sha256()
    values = dataset.tensors if isinstance(dataset, TensorDataset) else _values(dataset)
    for value in values:
        rows.update(_encoded(value))
    if unit_of_row is not None:
        rows.update(frame(*(str(unit).encode() for unit in unit_of_row)))
    return rows.hexdigest()


def _values(dataset: Any) -> Iterator[object]:
    for number in range(len(dataset)):
        row = dataset[number]
        yield from row if isinstance(row, tuple | list) else (row,)


def _encoded(value: object) -> bytes:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if not isinstance(value, np.ndarray | np.generic | int | float | str | bytes):
        raise ConfigurationError(f"unsafe_seed needs tensors, arrays, numbers or text, got {type(value).__name__}")
    array = np.asarray(value)
    return frame(str(array.dtype).encode(), str(array.shape).encode(), array.tobytes())
