"""The witness statement that a site signs for an auditor."""

from __future__ import annotations

from collections.abc import Sequence

from coreason_enclave.crypto import MAX_ENVELOPE_BYTES, Signer
from coreason_enclave.errors import ConfigurationError
from coreason_enclave.wire import WitnessedLog, WitnessStatement, seal_witness


def witness_statement(site_id: str, signer: Signer, logs: Sequence[WitnessedLog], now: float) -> bytes:
    """Return the envelope of a statement about the ``logs`` that ``site_id`` holds.

    Args:
        now: Unix seconds.

    Raises:
        ConfigurationError: the envelope would exceed the size limit.
    """
    statement = WitnessStatement(site_id=site_id, public_key=signer.public_hex, made_at=int(now), logs=tuple(logs))
    envelope = seal_witness(statement, signer)
    if len(envelope) > MAX_ENVELOPE_BYTES:
        raise ConfigurationError(f"the checkpoints of {len(logs)} jobs do not fit one file: select a job with --job")
    return envelope
