"""A reservation made outside a session, with randomness that nobody kept: the scope of one training."""

from __future__ import annotations

import secrets
from typing import Any

import numpy.typing as npt

from coreason_enclave.errors import ConfigurationError
from coreason_enclave.keystream import Keystream
from coreason_enclave.ledger.records import Reservation
from coreason_enclave.privacy.gate import StepGate
from coreason_enclave.privacy.scope import TrainingScope
from coreason_enclave.schemas import PrivacyConfig

__all__ = ["experiment_key", "experiment_scope"]


def experiment_key(unsafe_seed: bytes | None) -> bytes:
    """A fresh key, or the injected one; ask for it before anything is reserved.

    Raises:
        ConfigurationError: an injected seed has not exactly 32 bytes.
    """
    if unsafe_seed is not None and len(unsafe_seed) != 32:
        raise ConfigurationError(f"an injected seed has exactly 32 bytes, got {len(unsafe_seed)}")
    return secrets.token_bytes(32) if unsafe_seed is None else unsafe_seed


def experiment_scope(
    config: PrivacyConfig,
    reservation: Reservation,
    *,
    key: bytes,
    name: str,
    nominal_units: int,
    unit_of_row: npt.NDArray[Any] | None,
) -> TrainingScope:
    """The scope of ``reservation``, to be entered while a guard is made.

    The draws are named after the whole configuration, so that two trainings under one injected key share randomness
    only where they are the same training: noise that two releases share cancels out of their difference.
    """
    keystream = Keystream(key, job_digest=config.digest(), round_number=1, base_model_digest="", dataset_digest="")
    gate = StepGate(reservation.step_limit, reservation.target_epsilon)
    return TrainingScope(config, config, reservation, gate, keystream, nominal_units, unit_of_row, drift=None)
