"""Minimal HTTP/1.1 parsing: finds the boundary between requests, and refuses every ambiguous request."""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_HEAD_BYTES = 1 << 15

_LINE = re.compile(rb"([A-Z]{1,16}) (/[!-~]{0,1023}) HTTP/1\.1")
_LENGTH = re.compile(rb"[0-9]{1,15}")


class MalformedRequest(ValueError):
    """A request that the tunnel does not forward."""


@dataclass(frozen=True)
class RequestHead:
    """A request up to its empty line; ``body_bytes`` bytes follow."""

    method: str
    path: str
    body_bytes: int


def parse_head(raw: bytes) -> RequestHead:
    """Parse a head, including its final empty line; raise :class:`MalformedRequest`.

    Exactly one Content-Length may announce a body. Chunked bodies and repeated lengths enable request smuggling.
    """
    line, *fields = raw.removesuffix(b"\r\n\r\n").split(b"\r\n")
    match = _LINE.fullmatch(line)
    if match is None:
        raise MalformedRequest("not an HTTP/1.1 request line")
    named = [_field(entry) for entry in fields]
    lengths = [value for name, value in named if name == b"content-length"]
    if any(name in (b"transfer-encoding", b"upgrade") for name, _ in named) or len(lengths) > 1:
        raise MalformedRequest("a body has exactly one Content-Length")
    if lengths and not _LENGTH.fullmatch(lengths[0]):
        raise MalformedRequest("Content-Length is not a number")
    return RequestHead(match[1].decode(), match[2].decode(), int(lengths[0]) if lengths else 0)


def _field(entry: bytes) -> tuple[bytes, bytes]:
    name, colon, value = entry.partition(b":")
    if not colon or not name or name != name.strip():  # parsers disagree on folded or spaced names
        raise MalformedRequest("not a header field")
    return name.lower(), value.strip()
