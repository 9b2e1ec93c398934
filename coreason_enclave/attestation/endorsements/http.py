"""HTTP interface for fetching endorsements, and a standard-library client that uses TLS only."""

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
from coreason_enclave.attestation.verify import VerificationRefused

_CHUNK = 16 * 1024


@dataclass(frozen=True)
class HttpReply:
    """A reply.

    Attributes:
        headers: Values by name, names in lower case.
        body: At most :data:`MAX_ITEM_BYTES`.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpPort(Protocol):
    """A client that asks a vendor's service."""

    def __call__(self, url: str, *, body: bytes | None = None, content_type: str | None = None) -> HttpReply:
        """Send a GET request, or a POST request with ``body``.

        Raises:
            VerificationRefused: No complete answer: ``endorsements_missing`` with reason ``attestation_unavailable``.
        """
        ...


class HttpsClient:
    """A client that talks only to the requested host: redirects stay on the host, and every address must be ``https``.

    The environment may set a proxy as usual. A proxy sees host names, and cannot forge vendors' signatures.

    Args:
        timeout_s: Seconds to wait for the next bytes, and for a body as a whole.
        trust: TLS context with the trusted authorities; None: the system's certificate authorities.
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
                error.close()  # the error holds the connection
            message = str(getattr(error, "reason", "")) or str(error) or type(error).__name__
            raise _unavailable(url, message) from error


def _read(reply: HTTPResponse, url: str, timeout_s: float) -> bytes:
    """Return the whole body within the limits of size and time. A server that sends one byte a second counts as down.

    When read in pieces, Python's client accepts a body shorter than its announced length. This function checks the
    length.
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
        """Follow a redirect to the same host and scheme; refuse any other redirect. Reads no body."""
        fp.close()
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if (new.scheme, new.netloc) != (old.scheme, old.netloc):
            raise _unavailable(req.full_url, f"it points to another host, {new.netloc[:100]}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _AnyStatus(urllib.request.BaseHandler):
    """Handler that passes every status on to the caller, errors included."""

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
