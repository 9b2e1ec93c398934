"""Just enough HTTP/1.1 to follow where one request ends and the next begins; what could be read two ways is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["MAX_HEAD_BYTES", "MalformedRequest", "RequestHead", "parse_head"]

MAX_HEAD_BYTES = 1 << 15

_LINE = re.compile(rb"([A-Z]{1,16}) (/[!-~]{0,1023}) HTTP/1\.1")
_LENGTH = re.compile(rb"[0-9]{1,15}")


class MalformedRequest(ValueError):
    """Not a request that the tunnel carries."""


@dataclass(frozen=True)
class RequestHead:
    """A request up to its empty line. ``body_bytes`` follow it."""

    method: str
    path: str
    body_bytes: int


def parse_head(raw: bytes) -> RequestHead:
    """Parse a head, its final empty line included; raises :class:`MalformedRequest`.

    A body is announced by one Content-Length alone: chunked bodies, and two lengths, are how requests get smuggled.
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
    if not colon or not name or name != name.strip():  # a folded or spaced name is read in more than one way
        raise MalformedRequest("not a header field")
    return name.lower(), value.strip()
