"""The golden vectors as tests read them, and what whoever holds the keys could make of them."""

from __future__ import annotations

import json
from typing import Any

from coreason_enclave.crypto.encoding import canonical_json
from coreason_enclave.crypto.envelope import seal
from coreason_enclave.wire.roll_call import encode_roll_call
from tests.coreason_enclave.wire import story

__all__ = ["holds", "read", "refusal", "resealed", "roll_call_of", "sealed_by"]


def read(name: str) -> dict[str, Any]:
    vector: dict[str, Any] = json.loads((story.VECTORS / f"{name}.json").read_text())
    return vector


def holds(verifier: Any, vector: dict[str, Any]) -> bool:
    return refusal(verifier, vector) is None


def refusal(verifier: Any, vector: dict[str, Any]) -> str | None:
    """Why a vector is refused, ``something else`` where a statement of it is just not true; None where it holds."""
    try:
        return None if verifier.refusing(verifier.VECTORS[vector["kind"]], vector) else "something else"
    except verifier.Refused as error:
        return str(error)


def sealed_by(key: str, document: str, payload: bytes) -> str:
    signer = story.COORDINATOR if key == "coordinator" else story.KEYS[key]
    return seal(f"application/vnd.aegis.{document}.v1+json", payload, signer).decode()


def resealed(document: str, key: str, **changes: Any) -> str:
    """A golden document changed by whoever holds the key."""
    return sealed_by(key, document, canonical_json({**read(document)["payload"], **changes}))


def roll_call_of(*entries: tuple[str, bytes]) -> str:
    return encode_roll_call(dict(entries)).decode()
