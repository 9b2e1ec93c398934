"""How much of the gateway one party may have: the table ``[limits]`` of ``gateway.toml``.

Before a client shows its certificate, the party is the client's address (an IPv6 network of 64 bits counts as one
address); afterwards, the site that the certificate is pinned for. Certificates pinned for nobody, and certificates of
revoked sites, share one party.
"""

from __future__ import annotations

import ipaddress
import resource
from typing import Annotated

from coreason_enclave.schemas import StrictModel, in_range

__all__ = ["GatewayLimits", "party_address", "raise_descriptor_limit"]

_RESERVED_DESCRIPTORS = 320
"""What the gateway itself needs: 256 connections to SuperLink, its files, its sockets."""
_FEWEST = 16

_Count = Annotated[int, *in_range(1, 1 << 20)]
_Rate = Annotated[float, *in_range(0.1, 1e6)]


class GatewayLimits(StrictModel):
    """Limits for each party, and in all.

    Attributes:
        connections: with a certificate, in all. connections_per_site, connections_per_address: of these, one party's.
        heads_per_site: connections of one site on which no whole request head is in.
        requests_per_site: requests of one site that are worked on at a time; further ones wait.
        requests_per_s_per_site: their rate, over more than ten seconds; above it they wait.
        unfinished, unfinished_per_address: connections without a whole TLS hello, and as many that sent theirs and wait
            for their handshake. The oldest is dropped first.
        handshakes, handshakes_per_address: handshakes that have begun and not ended. The oldest is dropped first.
        handshakes_per_s, handshakes_per_s_per_address: how many begin in a second, of one address over more than ten
            seconds; further ones wait. A handshake costs two to three milliseconds of a core.
        handshake_s: seconds from accepting a connection to the end of its handshake.
    """

    connections: _Count = 512
    connections_per_site: _Count = 32
    connections_per_address: _Count = 384
    heads_per_site: _Count = 16
    requests_per_site: _Count = 16
    requests_per_s_per_site: _Rate = 50.0
    unfinished: _Count = 512
    unfinished_per_address: _Count = 128
    handshakes: _Count = 64
    handshakes_per_address: _Count = 32
    handshakes_per_s: _Rate = 100.0
    handshakes_per_s_per_address: _Rate = 20.0
    handshake_s: Annotated[float, *in_range(0.1, 60)] = 5.0

    @property
    def descriptors(self) -> int:
        """How many file descriptors a gateway at these limits may come to need."""
        return self.connections + 2 * self.unfinished + self.handshakes + _RESERVED_DESCRIPTORS

    def fitting(self, descriptors: int) -> GatewayLimits:
        """The same limits, or smaller ones that a process with so many file descriptors can keep."""
        if self.descriptors <= descriptors:
            return self
        wanted = self.descriptors - _RESERVED_DESCRIPTORS
        left = max(descriptors - min(_RESERVED_DESCRIPTORS, descriptors // 2), 1)
        smaller = {
            name: max(getattr(self, name) * left // wanted, min(_FEWEST, getattr(self, name)))
            for name in ("connections", "unfinished", "handshakes")
        }
        return self.model_copy(update=smaller)


def raise_descriptor_limit() -> int:
    """Raise this process's limit of file descriptors to the hard limit; return the limit that holds now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return 1 << 20 if hard == resource.RLIM_INFINITY else hard


def party_address(host: str) -> str:
    """The address as a party: of IPv6 the network of 64 bits, which one client may have whole."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))
