"""HTTP interface for fetching endorsements, and a client that uses TLS only."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from coreason_enclave.attestation.endorsements.collateral import MAX_ITEM_BYTES
from coreason_enclave.attestation.endorsements.sources import missing
from coreason_enclave.attestation.verify import Refusal, VerificationRefused

if TYPE_CHECKING:
    import httpx

# Without compression the bound on what is received is the bound on what is kept.
_HEADERS = {"User-Agent": "coreason-enclave", "Accept-Encoding": "identity"}
_MAX_REDIRECTS = 3


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
        self._trust = trust or ssl.create_default_context()

    def __call__(self, url: str, *, body: bytes | None = None, content_type: str | None = None) -> HttpReply:
        """See :class:`HttpPort`."""
        if urlsplit(url).scheme != "https":
            raise _unavailable(url, "it is not an https address")
        try:
            import httpx
        except ImportError as error:
            message = f"fetching endorsements needs {error.name}: install the extra 'attestation'"
            raise VerificationRefused(Refusal.LIBRARY_MISSING, message) from error
        headers = {**_HEADERS, **({"Content-Type": content_type} if content_type else {})}
        try:
            with httpx.Client(verify=self._trust, timeout=self._timeout_s, headers=headers) as client:
                return self._ask(client, client.build_request("GET" if body is None else "POST", url, content=body))
        except (httpx.HTTPError, httpx.InvalidURL, ImportError, ValueError) as error:  # the last two: proxy's address
            raise _unavailable(url, str(error) or type(error).__name__) from error

    def _ask(self, client: httpx.Client, request: httpx.Request) -> HttpReply:
        """Follow redirects on the same host; refuse any other redirect. Reads no body of a redirect."""
        url = str(request.url)
        for _ in range(1 + _MAX_REDIRECTS):
            reply = client.send(request, stream=True)
            following = reply.next_request
            if following is None:
                return HttpReply(reply.status_code, dict(reply.headers), self._read(reply, url))
            if (following.url.scheme, following.url.netloc) != (request.url.scheme, request.url.netloc):
                raise _unavailable(url, f"it points to another host, {following.url.netloc.decode()[:100]}")
            reply.close()
            request = following
        raise _unavailable(url, f"it redirects more than {_MAX_REDIRECTS} times")

    def _read(self, reply: httpx.Response, url: str) -> bytes:
        """Return the whole body, within the limits of size and time.

        A server that sends one byte a second counts as down. Chunks come as they arrive: with a chunk size, httpx would
        wait for the size, and the deadline would not be checked. httpx refuses a body shorter than announced.
        """
        deadline = time.monotonic() + self._timeout_s
        content = bytearray()
        for chunk in reply.iter_raw():
            content += chunk
            if len(content) > MAX_ITEM_BYTES:
                raise _unavailable(url, f"its answer is larger than {MAX_ITEM_BYTES} bytes")
            if time.monotonic() > deadline:
                raise _unavailable(url, "its answer takes too long")
        return bytes(content)


def _unavailable(url: str, message: str) -> VerificationRefused:
    return missing(f"{urlsplit(url).netloc[:100]} did not answer: {message[:300]}", unavailable=True)
