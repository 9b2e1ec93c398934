"""The agent's socket protocol: one request, one answer, each with a small JSON header and the announced bytes.

::

    4 bytes   length of the header, big-endian
    header    request  {"version": 1, "kind": one of KINDS, "parts": {"envelope": n, ...}}
              answer   {"version": 1, "parts": {...}}, {"version": 1, "refused": reason} or {"version": 1, "status": …}
    parts     envelope, arrays, roll_call, in this order, n bytes each

- ``status`` has no parts in either direction; ``validate`` has parts only in the request; all other kinds have parts in
  both directions.
- A refusal holds only a reason code.
- Any process that may open the socket (mode 0600) may send a request. The session answers only orders of its
  coordinators, over any transport.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from coreason_enclave.crypto import MAX_ENVELOPE_BYTES, canonical_json, parse_json
from coreason_enclave.errors import EnvelopeError, Reason
from coreason_enclave.wire import MAX_ROLL_CALL_BYTES, RequestKind, SealedMessage

VERSION: Final = 1
KINDS: Final = (*(kind.value for kind in RequestKind), "status")
MAX_HEADER_BYTES: Final = 1 << 16
LIMITS: Final[Mapping[str, int]] = {
    "envelope": MAX_ENVELOPE_BYTES,
    "arrays": 1 << 30,
    "roll_call": MAX_ROLL_CALL_BYTES,
}

ReadExactly = Callable[[int], bytes]
"""Reads exactly the given number of bytes, or raises ``EOFError``."""


def encode_frame(header: Mapping[str, Any], message: SealedMessage | None = None) -> bytes:
    """Return a frame: the header, with the lengths of ``message``'s parts, and the parts themselves."""
    parts = {} if message is None else message_parts(message)
    lengths = {} if message is None else {"parts": {name: len(data) for name, data in parts.items()}}
    encoded = canonical_json({"version": VERSION, **header, **lengths})
    return len(encoded).to_bytes(4, "big") + encoded + b"".join(parts.values())


def message_parts(message: SealedMessage) -> dict[str, bytes]:
    """Return the parts of a message in transport order."""
    fields = message.to_fields()
    return {name: fields[name] for name in LIMITS}


def read_frame(read: ReadExactly) -> tuple[dict[str, Any], SealedMessage | None]:
    """Read a header, and the message if the header announces one.

    Raises:
        EnvelopeError: the frame is malformed, or a part exceeds its limit. The rest of the stream is unreadable.
        EOFError: the stream ended.
    """
    length = int.from_bytes(read(4), "big")
    if not 0 < length <= MAX_HEADER_BYTES:
        raise EnvelopeError(f"a header of {length} bytes", reason=Reason.OVERSIZED if length else Reason.MALFORMED)
    header = parse_json(read(length), limit=MAX_HEADER_BYTES)
    if header.pop("version", None) != VERSION:
        raise EnvelopeError("the frame is of another version")
    lengths = header.pop("parts", None)
    return header, None if lengths is None else _message(_checked(lengths), read)


def _message(lengths: Mapping[str, int], read: ReadExactly) -> SealedMessage:
    return SealedMessage.from_fields({name: read(lengths[name]) for name in LIMITS})


def _checked(lengths: object) -> Mapping[str, int]:
    if not isinstance(lengths, dict) or lengths.keys() != LIMITS.keys():
        raise EnvelopeError(f"a message must have exactly the parts {', '.join(LIMITS)}")
    for name, most in LIMITS.items():
        length = lengths[name]
        if type(length) is not int or length < 0:
            raise EnvelopeError(f"the length of {name} is not a number")
        if length > most:
            raise EnvelopeError(f"{name} of {length} bytes exceeds the limit of {most}", reason=Reason.OVERSIZED)
    return lengths
