"""Canonical encodings: one byte string per value, so that each digest and signature has one meaning.

- *JSON* for documents that people may read: sorted keys, no white space, ASCII only, no NaN. A verifier never
  re-serialises: the verifier hashes and checks the received bytes, then parses them.
- *Length-prefixed* (:func:`frame`) for hashing several byte strings together: no two sequences share an encoding.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from coreason_enclave.errors import EnvelopeError, Reason


def canonical_json(value: Any) -> bytes:
    """Serialise ``value`` (JSON types only) to canonical bytes; raise ``ValueError`` for NaN and infinities.

    >>> canonical_json({"b": 1, "a": [True, None]})
    b'{"a":[true,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def parse_json(data: bytes, *, limit: int = 1 << 20) -> dict[str, Any]:
    """Parse a JSON object of at most ``limit`` bytes, UTF-8.

    Raises:
        EnvelopeError: too long, not JSON, not an object, or with duplicate keys, NaN or infinities.
    """
    if len(data) > limit:
        raise EnvelopeError(f"document of {len(data)} bytes exceeds the limit of {limit}", reason=Reason.OVERSIZED)
    try:
        value = json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise EnvelopeError(f"not a valid JSON document: {_in_words(error, data)}") from error
    if not isinstance(value, dict):
        raise EnvelopeError("expected a JSON object")
    return value


def _in_words(error: Exception, data: bytes) -> str:
    if not data.strip():
        return "it is empty"
    if isinstance(error, UnicodeDecodeError):
        return "it is not text in UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno}, column {error.colno}: {error.msg}"
    return "its values are nested too deeply" if isinstance(error, RecursionError) else str(error)


def frame(*parts: bytes) -> bytes:
    """Join byte strings, each behind its length as eight big-endian bytes.

    The encoding of the sequence is injective.

    >>> frame(b"ab", b"c") != frame(b"a", b"bc")
    True
    """
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def digest(domain: str, *parts: bytes) -> bytes:
    """Return the SHA-256 over a domain tag and the framed parts: 32 bytes that no other domain can produce."""
    return hashlib.sha256(frame(domain.encode(), *parts)).digest()


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of ``data`` in lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("an object names the same key twice")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")
