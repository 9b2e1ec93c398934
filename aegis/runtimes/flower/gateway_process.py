"""Runs the gateway as a process: ``python -m aegis.runtimes.flower.gateway_process FEDERATION``.

- SIGTERM ends the process: held fetches get empty answers, requests in progress get a few seconds.
- SIGHUP reloads the certificate.
"""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path

from aegis.errors import AegisError
from aegis.federation import FederationFolder
from aegis.gateway import (
    ControlApplication,
    FleetProxy,
    Gateway,
    GatewayAudit,
    GatewayConfig,
    GatewayFiles,
    NodeRegistry,
    PullBarrier,
    Registry,
    Upstream,
)
from aegis.http import (
    BodyLimits,
    CrowdCounts,
    GatewayLimits,
    Listener,
    ServerTls,
    TlsListener,
    bind_tcp,
    bind_unix,
    raise_descriptor_limit,
    serve,
)
from aegis.runtimes.flower.fleet_codec import FlowerFleetCodec
from aegis.security import HashLog
from coreason_enclave.errors import ConfigurationError, EnclaveError
from coreason_enclave.system import LogLevel, configure_logging

_log = logging.getLogger(__name__)


def serve_gateway(folder: Path) -> None:
    """Serve a federation folder's gateway until SIGTERM. Main thread only.

    Raises:
        AegisError, EnclaveError: the gateway cannot start; the message states the cause.
    """
    federation, files = FederationFolder(folder), GatewayFiles(FederationFolder(folder).coordinator)
    federation.config()
    config = files.config()
    tls = ServerTls(files.certificate, files.key, files.authority)
    signal.signal(signal.SIGHUP, lambda *_: _reload(tls))
    audit = GatewayAudit(HashLog(files.audit))
    try:
        audit.accepted("gateway", "start")
        serve(gateway_listeners(federation, files, config, tls, audit))
        audit.accepted("gateway", "stop")
    finally:
        audit.close()


def gateway_listeners(
    federation: FederationFolder, files: GatewayFiles, config: GatewayConfig, tls: ServerTls, audit: GatewayAudit
) -> list[Listener]:
    """Return the gateway's two bound listeners: for sites, and for the coordinator's control socket."""
    nodes, gate = NodeRegistry(files.nodes), PullBarrier()
    upstream = Upstream(f"https://127.0.0.1:{config.superlink_port}", files.authority)
    proxy = FleetProxy(
        upstream, FlowerFleetCodec(), nodes=nodes, audit=audit, gate=gate, object_bytes=config.max_object_bytes
    )
    body, limits = BodyLimits(config.body_idle_s, config.min_bytes_per_s), _affordable_limits(config.limits)
    counts = CrowdCounts(limits.connections)
    gateway = Gateway(Registry(federation), proxy, nodes=nodes, audit=audit, body=body, limits=limits, counts=counts)
    for_sites = TlsListener(
        gateway,
        bind_tcp(config.host, config.port),
        gate.close,
        tls=tls,
        site_of=gateway.site_of,
        limits=limits,
        counts=counts,
    )
    return [for_sites, Listener(ControlApplication(gateway.report, gate), bind_unix(files.control_socket))]


def _affordable_limits(limits: GatewayLimits) -> GatewayLimits:
    """Reduce the limits to the file descriptors of this process: each connection takes one descriptor."""
    descriptors = raise_descriptor_limit()
    fitting = limits.fitting(descriptors)
    _log.info("%d file descriptors, at most %d wanted", descriptors, limits.descriptors)
    if fitting != limits:
        _log.warning(
            "too few file descriptors (the hard limit of RLIMIT_NOFILE is %d) for the limits in gateway.toml: "
            "%d connections, %d unfinished, %d handshakes from now on",
            descriptors,
            fitting.connections,
            fitting.unfinished,
            fitting.handshakes,
        )
    return fitting


def _reload(tls: ServerTls) -> None:
    try:
        tls.reload()
    except ConfigurationError as error:
        _log.error("the gateway keeps its present certificate: %s", error)


def main() -> None:
    """Parse the command line (one argument, the federation folder) and serve."""
    configure_logging({"process": "gateway"}, default=LogLevel.INFO)
    if len(sys.argv) != 2:
        sys.exit("usage: python -m aegis.runtimes.flower.gateway_process FEDERATION")
    try:
        serve_gateway(Path(sys.argv[1]))
    except (AegisError, EnclaveError) as error:
        sys.exit(f"the gateway cannot start: {error}")


if __name__ == "__main__":
    main()
