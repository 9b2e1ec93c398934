"""Members of a federation: creates the federation, admits sites, pins their machines, revokes sites.

The coordinator's operator calls these functions on the federation's folder; a running gateway follows the changes. No
function here can tell who owns a request's key: two people have to compare fingerprints.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from aegis.errors import RunFolderError
from aegis.federation import FederationConfig, FederationFolder
from aegis.gateway import GatewayConfig, GatewayFiles
from aegis.security import CertificateAuthority, certificate_fingerprint, create_authority
from coreason_enclave.schemas import Profile, explained
from coreason_enclave.wire import RegistrationGrant, RegistrationRequest, open_request, parse_address, seal_grant

_LOOPBACK = "127.0.0.1"

Clock = Callable[[], float]

_PLATFORM = re.compile(r"[0-9a-f]{8,256}")


@dataclass(frozen=True)
class Pinned:
    """The machines that a site's evidence may come from.

    Attributes:
        before: the machines listed previously.
        shared: other participants that list the same machine, by machine.
    """

    site: str
    platforms: tuple[str, ...]
    before: tuple[str, ...]
    shared: Mapping[str, tuple[str, ...]]

    @property
    def changed(self) -> bool:
        """Return True if the set of machines changed; the order in the list does not count."""
        return set(self.platforms) != set(self.before)


def create_federation(
    federation: FederationFolder,
    *,
    profile: Profile,
    delta: float,
    host: str = _LOOPBACK,
    public_address: str | None = None,
) -> GatewayConfig:
    """Create a federation without participants: the coordinator's key, its authority, the gateway.

    Args:
        host: the gateway's listening address.
        public_address: ``host:port`` as published to sites.

    Raises:
        RunFolderError: the folder already holds a federation, or an argument is unusable.
    """
    if federation.exists:
        raise RunFolderError(f"{federation.path} already holds a federation: choose another folder")
    with explained(lambda why: RunFolderError(f"not a federation: {why}")):
        attester = "unattested" if profile is Profile.UNATTESTED else None
        config = FederationConfig(profile=profile, delta=delta, public_keys={}, attester=attester)
    _gateway(host, public_address)  # raises before the first write
    federation.coordinator.mkdir(mode=0o700, parents=True, exist_ok=True)
    federation.signer()
    gateway = prepare_network(federation, host=host, public_address=public_address)
    federation.create(config)
    return gateway


def prepare_network(
    federation: FederationFolder, *, host: str = _LOOPBACK, public_address: str | None = None, clock: Clock = time.time
) -> GatewayConfig:
    """Create any missing network files of a federation: authority, server certificates, ``gateway.toml``."""
    files = GatewayFiles(federation.coordinator)
    gateway = files.config() if files.config_file.exists() else _gateway(host, public_address)
    authority = create_authority(_pki(federation), clock=clock)
    if not files.certificate.exists():
        authority.issue_server("gateway", sorted({parse_address(gateway.public_address)[0], gateway.host} - _ANY))
    if not (_pki(federation) / "superlink.crt").exists():
        authority.issue_server("superlink", [_LOOPBACK, "localhost"])
    if not files.config_file.exists():
        files.save(gateway)
    return gateway


def admit(
    federation: FederationFolder,
    request: bytes,
    *,
    platforms: Collection[str] = (),
    accept_unattested: bool = False,
    clock: Clock = time.time,
) -> tuple[RegistrationRequest, bytes]:
    """Admit the site that signed ``request``, or renew its certificate; return the request and the sealed grant.

    Args:
        platforms: machines to pin the site to (see :func:`pin`). Empty: keep the current pins.
        accept_unattested: accept the site by name without evidence of its hardware. Profile ``unattested`` only, which
            admits no site otherwise.

    Raises:
        EnvelopeError: the request is malformed, or not signed by the key in the request.
        CertificateRefused: the site's certificate request is not acceptable.
        RunFolderError: a site of this name takes part with another key, is revoked, or is pinned to other machines; or
            ``accept_unattested`` does not fit the federation's profile.
    """
    applicant, config = open_request(request), federation.config()
    if config.public_keys.get(applicant.site_id, applicant.public_key) != applicant.public_key:
        raise RunFolderError(
            f"{applicant.site_id} has another key: if re-created, remove its old entries from {federation.registry}"
        )
    _require_profile_of(config, applicant.site_id, accept_unattested)
    pinned = _to_pin(config, applicant.site_id, platforms) if platforms else None
    gateway = prepare_network(federation, clock=clock)
    certificate = CertificateAuthority(_pki(federation), clock).issue_client(
        applicant.site_id, applicant.tls_request.encode()
    )
    admitted = config.admitting(
        applicant.site_id,
        public_key=applicant.public_key,
        node_key=applicant.node_key,
        certificate=certificate_fingerprint(certificate),
    )
    if pinned is not None:
        admitted = admitted.pinning(applicant.site_id, pinned.platforms)
    if accept_unattested:
        admitted = admitted.accepting_unattested(applicant.site_id)
    grant = _grant(federation, admitted, applicant, gateway, certificate, clock)
    federation.create(admitted)
    return applicant, grant


def _require_profile_of(config: FederationConfig, site: str, accept_unattested: bool) -> None:
    unattested = config.profile is Profile.UNATTESTED
    if accept_unattested and not unattested:
        raise RunFolderError(f"the federation's profile is {config.profile}, which accepts no unattested site")
    if unattested and not accept_unattested and site not in config.unattested_sites:
        raise RunFolderError(
            f"the federation's profile is unattested, and unattested_sites does not list {site}: no evidence will show "
            "which code runs there (--accept-unattested accepts this site so, by name); nothing was changed"
        )


def revoke(federation: FederationFolder, site_id: str) -> None:
    """Accept no further message from a participant; raises :class:`RunFolderError` for an unknown site."""
    federation.create(federation.config().revoking(site_id))


def pin(
    federation: FederationFolder,
    site_id: str,
    platforms: Collection[str],
    *,
    replace: bool = False,
    unsafe_shared: bool = False,
) -> Pinned:
    """Pin a participant's evidence to its machines: all of them, the processor's id and each GPU's.

    Pinning the same machines again changes nothing. ``federation.toml`` is written atomically. A running job keeps the
    policy from its start.

    Args:
        platforms: ids as ``aegis evidence verify`` prints them.
        replace: allow the new ids to replace different ones.
        unsafe_shared: allow ids that another participant lists.

    Raises:
        RunFolderError: any of these:

            - an unknown or revoked participant;
            - no ``[attestation]`` table;
            - invalid ids;
            - different machines in the list, and ``replace`` is false;
            - a machine of another participant, and ``unsafe_shared`` is false.
    """
    config = federation.config()
    pinned = _to_pin(config, site_id, platforms, replace=replace)
    if pinned.shared and not unsafe_shared:
        machine, others = next(iter(pinned.shared.items()))
        raise RunFolderError(
            f"{machine} is pinned to {', '.join(others)}: it could attest for both (--unsafe-shared accepts this)"
        )
    revised = config.pinning(site_id, pinned.platforms, shared=pinned.shared)
    if pinned.changed:
        federation.create(revised)
    return pinned


def _to_pin(config: FederationConfig, site_id: str, platforms: Collection[str], *, replace: bool = False) -> Pinned:
    listed = config.pinned()
    _require_machines(platforms)
    shared = {
        machine: tuple(sorted(owners for owners, theirs in listed.items() if owners != site_id and machine in theirs))
        for machine in platforms
    }
    pinned = Pinned(
        site_id, tuple(platforms), listed.get(site_id, ()), {one: owners for one, owners in shared.items() if owners}
    )
    if pinned.before and pinned.changed and not replace:
        raise RunFolderError(
            f"{site_id} is pinned to {', '.join(pinned.before)}: if it moved, name all its machines with pin --replace"
        )
    return pinned


def _require_machines(platforms: Collection[str]) -> None:
    """Raise unless each id could match evidence.

    Reason: an impossible id would refuse the site for ever, without an explanation.
    """
    if not platforms:
        raise RunFolderError("name at least one platform")
    if len(set(platforms)) != len(platforms):
        raise RunFolderError("one platform is named twice")
    for machine in platforms:
        if not _PLATFORM.fullmatch(machine):
            expected = "8 to 256 lower-case hex digits, the platform_id printed by aegis evidence verify"
            raise RunFolderError(f"a platform must be {expected}, got {machine[:80]!r}")
        if not machine.strip("0"):
            raise RunFolderError("a platform id of zeros belongs to any host that masks its id: no evidence matches it")


def _grant(
    federation: FederationFolder,
    admitted: FederationConfig,
    request: RegistrationRequest,
    gateway: GatewayConfig,
    certificate: bytes,
    clock: Clock,
) -> bytes:
    signer = federation.signer()
    grant = RegistrationGrant(
        site_id=request.site_id,
        public_key=request.public_key,
        coordinator_key=signer.public_hex,
        gateway=gateway.public_address,
        server_name=parse_address(gateway.public_address)[0],
        ca_certificate=CertificateAuthority(_pki(federation), clock).certificate.decode(),
        client_certificate=certificate.decode(),
        participants={site: key for site, key in admitted.public_keys.items() if site not in admitted.revoked},
        issued_at=int(clock()),
    )
    return seal_grant(grant, signer)


def _gateway(host: str, public_address: str | None) -> GatewayConfig:
    """Return a configuration with the published port, or a port free at this moment."""
    port, superlink_port = free_ports(2)
    if public_address is None and host in _ANY:
        raise RunFolderError(f"the gateway listens on {host}: give --public-address, by which sites reach it")
    address = public_address or (f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    try:
        port = parse_address(address)[1]
    except ValueError as error:
        raise RunFolderError(f"the gateway's address {error}") from error
    return GatewayConfig(host=host, port=port, public_address=address, superlink_port=superlink_port)


def free_ports(number: int) -> list[int]:
    """Return loopback ports that were free a moment ago."""
    with ExitStack() as opened:
        probes = [opened.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind((_LOOPBACK, 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def _pki(federation: FederationFolder) -> Path:
    return federation.coordinator / "pki"


_ANY = {"0.0.0.0", "::"}  # noqa: S104 - compared with, not listened on
