"""Limits for each party on the gateway: the table ``[limits]`` of ``gateway.toml``.

The party of a connection:

- before the client shows its certificate: the client's address (an IPv6 network of 64 bits counts as one address);
- afterwards: the site that the certificate is pinned for. All unpinned certificates and all revoked sites share a
  party.
"""

from __future__ import annotations

import ipaddress
import resource
from typing import Annotated

from coreason_enclave.schemas import StrictModel, in_range

_RESERVED_DESCRIPTORS = 320
"""The gateway's own needs: 256 connections to SuperLink, its files, its sockets."""
_FEWEST = 16

_Count = Annotated[int, *in_range(1, 1 << 20)]
_Rate = Annotated[float, *in_range(0.1, 1e6)]


class GatewayLimits(StrictModel):
    """Limits for each party, and in total.

    Attributes:
        connections: with a certificate, in total.
        connections_per_site, connections_per_address: of these, for each party.
        heads_per_site: connections of a site that wait for a whole request head.
        requests_per_site: concurrent requests of a site; further requests wait.
        requests_per_s_per_site: a site's request rate, averaged over more than ten seconds; further requests wait.
        unfinished, unfinished_per_address: connections without a whole TLS hello, and as many again that wait for their
            handshake. The oldest gives way first.
        handshakes, handshakes_per_address: handshakes in progress. The oldest gives way first.
        handshakes_per_s, handshakes_per_s_per_address: handshakes begun per second, for an address over more than ten
            seconds; further handshakes wait. A handshake costs two to three milliseconds of a core.
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
        """The maximum number of file descriptors that a gateway at these limits needs."""
        return self.connections + 2 * self.unfinished + self.handshakes + _RESERVED_DESCRIPTORS

    def fitting(self, descriptors: int) -> GatewayLimits:
        """Return limits that fit a process with ``descriptors`` file descriptors: unchanged, or scaled down."""
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
    """Raise this process's file descriptor limit to the hard limit; return the limit now in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return 1 << 20 if hard == resource.RLIM_INFINITY else hard


def party_address(host: str) -> str:
    """Return the address as a party. IPv6: the network of 64 bits, because a client may own all of its addresses."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))
