"""DSSE envelopes with Ed25519: a signature over a payload and its type, verified before the payload is parsed.

The format is DSSE v1 (https://github.com/secure-systems-lab/dsse): a JSON object with ``payloadType``, base64
``payload`` and ``signatures``. The signature covers the pre-authentication encoding (PAE) of type and payload, so a
signature over one kind of document never passes for another kind.

>>> signer = Signer.generate()
>>> keys = KeyRing({"hospital-a": signer.public_hex})
>>> opened = open_envelope(seal("application/vnd.aegis.example", b"{}", signer), "application/vnd.aegis.example", keys)
>>> opened.signer, opened.payload
('hospital-a', b'{}')
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature

from coreason_enclave.crypto.encoding import canonical_json, parse_json, sha256_hex
from coreason_enclave.crypto.signing import Signer, public_key_from_hex
from coreason_enclave.errors import ConfigurationError, EnvelopeError, Reason

MAX_ENVELOPE_BYTES = 1 << 20
"""Largest size of an envelope. Arrays travel next to an envelope, bound by digest, so envelopes stay small."""


class KeyRing:
    """The participants who may sign: names and Ed25519 public keys (hex). An empty ring accepts no one.

    Raises:
        ConfigurationError: a key does not parse, or two participants share one key.
    """

    def __init__(self, public_keys: Mapping[str, str]) -> None:
        self._by_id = {sha256_hex(bytes.fromhex(_checked(key))): (name, key) for name, key in public_keys.items()}
        if len(self._by_id) != len(public_keys):
            raise ConfigurationError("two participants share one public key: each participant needs its own")

    def verify(self, key_id: str, message: bytes, signature: bytes) -> str:
        """Return the participant whose key made ``signature`` over ``message``.

        Raises:
            EnvelopeError: the key is unknown, or the signature does not verify.
        """
        if key_id not in self._by_id:
            raise EnvelopeError(f"signed by unknown key {key_id[:16]}…", reason=Reason.UNKNOWN_SIGNER)
        name, public_hex = self._by_id[key_id]
        try:
            public_key_from_hex(public_hex).verify(signature, message)
        except InvalidSignature:
            raise EnvelopeError(f"the signature of {name} does not verify", reason=Reason.BAD_SIGNATURE) from None
        return name


@dataclass(frozen=True)
class Opened:
    """A verified payload: ``signer`` signed exactly these bytes as ``payload_type``."""

    payload_type: str
    payload: bytes
    signer: str
    key_id: str


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """Return DSSE's PAE: ``DSSEv1 SP len(type) SP type SP len(payload) SP payload``, lengths in decimal bytes."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal(payload_type: str, payload: bytes, signer: Signer) -> bytes:
    """Sign ``payload`` and return the envelope (JSON)."""
    signature = signer.sign(pre_authentication_encoding(payload_type, payload))
    return canonical_json(
        {
            "payloadType": payload_type,
            "payload": base64.b64encode(payload).decode(),
            "signatures": [{"keyid": signer.key_id, "sig": base64.b64encode(signature).decode()}],
        }
    )


def open_envelope(envelope: bytes, payload_type: str, keys: KeyRing) -> Opened:
    """Verify an envelope of exactly the expected type, signed by exactly one known key.

    Raises:
        EnvelopeError: oversized, malformed, of another type, by an unknown key, or with a wrong signature.
    """
    document = parse_json(envelope, limit=MAX_ENVELOPE_BYTES)
    if document.keys() != {"payloadType", "payload", "signatures"}:
        raise EnvelopeError("not a DSSE envelope: the document must have only payloadType, payload and signatures")
    if document["payloadType"] != payload_type:
        raise EnvelopeError(
            f"expected {payload_type}, got {str(document['payloadType'])[:80]!r}", reason=Reason.WRONG_PAYLOAD_TYPE
        )
    payload, (key_id, signature) = _base64(document["payload"]), _only_signature(document["signatures"])
    signer = keys.verify(key_id, pre_authentication_encoding(payload_type, payload), signature)
    return Opened(payload_type, payload, signer, key_id)


def unverified_payload(envelope: bytes) -> bytes:
    """Return the payload without verification, only to learn which key must verify the envelope.

    Do not read any other field from the result.

    Raises:
        EnvelopeError: oversized or malformed.
    """
    return _base64(parse_json(envelope, limit=MAX_ENVELOPE_BYTES).get("payload"))


def _only_signature(signatures: object) -> tuple[str, bytes]:
    match signatures:
        case [{"keyid": str(key_id), "sig": sig, **others}] if not others:
            return key_id, _base64(sig)
    raise EnvelopeError("an envelope must carry exactly one signature, with keyid and sig")


def _base64(text: object) -> bytes:
    if not isinstance(text, str):
        raise EnvelopeError("expected base64 text")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise EnvelopeError(f"not base64: {error}") from error
    if base64.b64encode(data).decode() != text:  # unused bits set: would give one signature several spellings
        raise EnvelopeError("not the canonical base64 of its bytes")
    return data


def _checked(public_hex: str) -> str:
    public_key_from_hex(public_hex)
    return public_hex
