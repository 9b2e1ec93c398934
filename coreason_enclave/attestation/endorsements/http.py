"""HTTP as fetching endorsements needs it, behind a port; the real client is the standard library's, over TLS alone."""

from __future__ import annotations

import ssl
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse
from typing import IO, Protocol
from urllib.error import HTTPError
from urllib.parse import urlsplit

from coreason_enclave.attestation.endorsements.collateral import MAX_ITEM_BYTES
from coreason_enclave.attestation.endorsements.sources import missing
from coreason_enclave.attestation.verify.verdict import VerificationRefused

__all__ = ["HttpPort", "HttpReply", "HttpsClient"]

_CHUNK = 16 * 1024


@dataclass(frozen=True)
class HttpReply:
    """``headers``: names in lower case; ``body``: at most :data:`MAX_ITEM_BYTES`."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpPort(Protocol):
    """Asks a vendor's service."""

    def __call__(self, url: str, *, body: bytes | None = None, content_type: str | None = None) -> HttpReply:
        """GET, or POST where there is a ``body``.

        Raises:
            VerificationRefused: ``endorsements_missing`` for the reason ``attestation_unavailable``: no whole answer.
        """
        ...


class HttpsClient:
    """Talks to the host it was told and no other: redirects stay on it, nothing but ``https`` is opened.

    A proxy is taken from the environment as usual; it sees host names, and cannot forge what vendors sign.

    Args:
        timeout_s: seconds to wait for the next bytes, and for a body as a whole.
        trust: which servers are believed; None: the system's certificate authorities.
    """

    def __init__(self, *, timeout_s: float = 10.0, trust: ssl.SSLContext | None = None) -> None:
        self._timeout_s = timeout_s
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.HTTPSHandler(context=trust or ssl.create_default_context()),
            urllib.request.HTTPErrorProcessor(),
            _SameHost(),
            _AnyStatus(),
        ):
            self._opener.add_handler(handler)

    def __call__(self, url: str, *, body: bytes | None = None, content_type: str | None = None) -> HttpReply:
        """See :class:`HttpPort`."""
        if urlsplit(url).scheme != "https":
            raise _unavailable(url, "it is not an https address")
        headers = {"User-Agent": "coreason-enclave", **({"Content-Type": content_type} if content_type else {})}
        request = urllib.request.Request(url, data=body, headers=headers)  # noqa: S310 - https alone, see above
        try:
            with self._opener.open(request, timeout=self._timeout_s) as reply:
                content = _read(reply, url, self._timeout_s)
                names = {name.lower(): value for name, value in reply.headers.items()}
                return HttpReply(reply.status, names, content)
        except (OSError, HTTPException, ValueError) as error:
            if isinstance(error, HTTPError):
                error.close()  # it holds the connection
            message = str(getattr(error, "reason", "")) or str(error) or type(error).__name__
            raise _unavailable(url, message) from error


def _read(reply: HTTPResponse, url: str, timeout_s: float) -> bytes:
    """The whole body within size and time: a server that sends a byte a second is one that does not answer.

    Python's client takes a body that ends before its announced length for a whole one, when read in pieces.
    """
    deadline = time.monotonic() + timeout_s
    announced = reply.getheader("Content-Length")
    expected = None if announced is None else int(announced)
    content = bytearray()
    while len(content) != expected and (chunk := reply.read1(_CHUNK)):
        content += chunk
        if len(content) > MAX_ITEM_BYTES:
            raise _unavailable(url, f"its answer is larger than {MAX_ITEM_BYTES} bytes")
        if time.monotonic() > deadline:
            raise _unavailable(url, "its answer takes too long")
    if expected not in (None, len(content)):
        raise _unavailable(url, f"its answer ends after {len(content)} of {expected} bytes")
    return bytes(content)


class _SameHost(urllib.request.HTTPRedirectHandler):
    max_redirections = 3

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        """Follow on the same host over the same scheme; anything else is no answer. No body is read."""
        fp.close()
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if (new.scheme, new.netloc) != (old.scheme, old.netloc):
            raise _unavailable(req.full_url, f"it points to another host, {new.netloc[:100]}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _AnyStatus(urllib.request.BaseHandler):
    """A status that is no success is an answer like any other, for the caller to read."""

    def http_error_default(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        hdrs: HTTPMessage,
    ) -> IO[bytes]:
        return fp


def _unavailable(url: str, message: str) -> VerificationRefused:
    return missing(f"{urlsplit(url).netloc[:100]} did not answer: {message[:300]}", unavailable=True)
