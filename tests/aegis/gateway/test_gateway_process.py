"""The gateway as its own process, in front of a real SuperLink."""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen

import httpx
import pytest
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest, PullMessagesRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import PullObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from aegis.errors import GatewayUnreachable
from aegis.gateway.config import GatewayConfig
from aegis.gateway.control import GatewayControl
from aegis.http.tls_server import bind_tcp
from aegis.runtimes.flower.control import SuperLinkControl
from aegis.runtimes.flower.superlink import SuperLinkFiles, flower_environment, superlink_command
from coreason_enclave.system.processes import spawn, terminate
from tests.aegis.gateway.gateways import FakeSuperLink, Federation
from tests.aegis.gateway.waiting import until


def free_port() -> int:
    with bind_tcp("127.0.0.1", 0) as listening:
        return int(listening.getsockname()[1])


def command(federation: Federation) -> list[str]:
    return [sys.executable, "-m", "aegis.runtimes.flower.gateway_process", str(federation.folder.path)]


@contextlib.contextmanager
def gateway_process(federation: Federation, superlink_port: int) -> Iterator[tuple[Popen[bytes], int]]:
    port = free_port()
    federation.files.save(GatewayConfig(port=port, public_address=f"127.0.0.1:{port}", superlink_port=superlink_port))
    process = spawn(command(federation), log=federation.folder.path / "gateway.log")
    try:
        until(lambda: answers(federation) or process.poll() is not None, within_s=20)
        yield process, port
    finally:
        terminate(process)


def answers(federation: Federation) -> bool:
    with contextlib.suppress(GatewayUnreachable):
        GatewayControl(federation.files.control_socket).status()
        return True
    return False


def listening_addresses(pid: int) -> set[str]:
    """What a process listens on over TCP, from /proc."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.add(str(link.readlink()))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text(encoding="utf-8").splitlines()[1:]:
            columns = line.split()
            if columns[3] == "0A" and f"socket:[{columns[9]}]" in inodes:
                found.add(columns[1].partition(":")[0])
    return found


LOOPBACK = f"{int.from_bytes(socket.inet_aton('127.0.0.1'), 'little'):08X}"


def test_it_listens_on_loopback_alone_and_ends_when_asked(
    federation: Federation, superlink: FakeSuperLink, superlink_port: int
) -> None:
    with gateway_process(federation, superlink_port) as (process, _):
        assert listening_addresses(process.pid) == {LOOPBACK}
        process.send_signal(signal.SIGTERM)

        assert process.wait(timeout=10) == 0
    log = federation.files.audit.read_text(encoding="utf-8")
    assert ['"action":"start"' in log, '"action":"stop"' in log] == [True, True]


def test_a_second_gateway_of_the_same_federation_does_not_start(
    federation: Federation, superlink: FakeSuperLink, superlink_port: int
) -> None:
    with (
        gateway_process(federation, superlink_port) as (first, _),
        gateway_process(federation, superlink_port) as (second, _),
    ):
        assert second.wait(timeout=20) == 1
        assert first.poll() is None
        assert answers(federation)
    assert "written by another process" in (federation.folder.path / "gateway.log").read_text(encoding="utf-8")


@pytest.mark.parametrize("missing", ["federation.toml", "coordinator/gateway.toml", "coordinator/pki/gateway.key"])
def test_it_says_in_one_line_why_it_cannot_start(federation: Federation, missing: str) -> None:
    federation.files.save(GatewayConfig(port=free_port(), public_address="127.0.0.1:1", superlink_port=1))
    (federation.folder.path / missing).unlink()
    log = federation.folder.path / "gateway.log"
    process = spawn(
        [sys.executable, "-m", "aegis.runtimes.flower.gateway_process", str(federation.folder.path)], log=log
    )

    assert process.wait(timeout=20) == 1
    text = log.read_text(encoding="utf-8")
    assert text.startswith("the gateway cannot start: ")
    assert "Traceback" not in text


@contextlib.contextmanager
def real_superlink(federation: Federation) -> Iterator[int]:
    files = SuperLinkFiles(federation.folder.coordinator / "flower", federation.folder.coordinator / "pki")
    files.prepare()
    port = free_port()
    serve = superlink_command(files, port=port, health_port=free_port())
    process = spawn(serve, log=federation.folder.path / "superlink.log", env=flower_environment(files.home))
    try:
        until(lambda: files.endpoint(port).serves(), within_s=60)
        with SuperLinkControl(files.endpoint(port)) as control:
            control.register({name: site.node_key for name, site in federation.sites.items()})
            for site_id, site in federation.sites.items():
                federation.sites[site_id].node_id = control.nodes()[site.node_key]
        yield port
    finally:
        terminate(process)


def flower_client(federation: Federation, site_id: str, port: int) -> FleetHttpClient:
    """What Flower's own node speaks with, carrying the participant's certificate."""
    site = federation.sites[site_id]
    signs = NodeAuthHttpInterceptor(site.node_private, site.node_private.public_key())
    return FleetHttpClient(
        f"https://127.0.0.1:{port}",
        interceptors=[RuntimeVersionHttpInterceptor(component_name="SuperNode"), signs],
        verify=site.tls(federation.authority.certificate),
    )


def test_flowers_own_client_joins_beats_fetches_and_leaves_through_it(federation: Federation) -> None:
    with real_superlink(federation) as superlink_port, gateway_process(federation, superlink_port) as (_, port):
        site, other = federation.sites["site-a"], federation.sites["site-b"]
        control = GatewayControl(federation.files.control_socket)
        with flower_client(federation, "site-a", port) as client:
            activation = ActivateNodeRequest(public_key=site.node_public, heartbeat_interval=30.0)
            node = Node(node_id=client.ActivateNode(activation).node_id)
            assert node.node_id == site.node_id
            assert client.SendNodeHeartbeat(SendNodeHeartbeatRequest(node=node, heartbeat_interval=30.0)).success
            client._client.timeout = httpx.Timeout(0.5)  # a fetch is held for 25 seconds
            with pytest.raises(httpx.ReadTimeout):
                client.PullMessages(PullMessagesRequest(node=node))
            client._client.timeout = httpx.Timeout(10.0)
            assert control.status()["site-a"].activations == 1

            with pytest.raises(httpx.HTTPStatusError, match="401"):
                client.PullMessages(PullMessagesRequest(node=Node(node_id=other.node_id)))
            with pytest.raises(httpx.HTTPStatusError, match="401"):
                client.PullObject(PullObjectRequest(node=node, run_id=1, object_id="anything"))
            client.DeactivateNode(DeactivateNodeRequest(node_id=node.node_id))

        assert not control.status()["site-a"].connected


def test_a_hangup_signal_makes_it_show_its_renewed_certificate(
    federation: Federation, superlink: FakeSuperLink, superlink_port: int
) -> None:
    with gateway_process(federation, superlink_port) as (process, port):
        first = ssl.get_server_certificate(("127.0.0.1", port), timeout=10)
        federation.authority.issue_server("gateway", ["127.0.0.1"])
        process.send_signal(signal.SIGHUP)

        until(lambda: ssl.get_server_certificate(("127.0.0.1", port), timeout=10) != first)
        federation.files.key.unlink()
        process.send_signal(signal.SIGHUP)
        until(
            lambda: (
                "the gateway keeps its present certificate"
                in (federation.folder.path / "gateway.log").read_text("utf-8")
            )
        )
        assert answers(federation)
