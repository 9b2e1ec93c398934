"""What the site uses of Flower below its public surface: an upgrade that moves any of it turns a line here red."""

from __future__ import annotations

import inspect
import re
import ssl
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import flwr
import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.constant import SubStatus
from flwr.proto.fleet_pb2 import DeactivateNodeRequest
from flwr.proto.runtime_pb2 import AcquireTaskRequest, AcquireTaskResponse, SendTaskHeartbeatResponse
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.interceptors import SuperExecAuthHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode import fleet_http_connection, start_client_internal
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from flwr.supernode.runtime import run_clientapp

from coreason_enclave.agent.tunnel import FLEET, POLL, RECEIVED
from coreason_enclave.federation.flower import supernode as supernode_module
from coreason_enclave.federation.flower.supernode import SuperNode, last_node_id, quiet_environment
from coreason_enclave.site.tls_keys import load_node_key, load_or_create_node_key, node_key_text
from coreason_enclave.wire.registration import RegistrationRequest

FLOWER = Path(sysconfig.get_path("scripts")) / "flower-supernode"


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


def fields(message: Any) -> set[str]:
    return {field.name for field in message.DESCRIPTOR.fields}


def test_the_version_is_the_one_that_was_read() -> None:
    assert flwr.__version__ == "1.41.0"


def test_a_tasks_life_has_the_functions_and_fields_that_are_used() -> None:
    assert parameters(run_clientapp.pull_task_input) == ["client"]
    assert parameters(run_clientapp.push_message) == ["client", "message", "context"]
    assert parameters(run_clientapp.push_task_output) == ["client", "context", "sub_status", "details"]
    assert {"supported_task_types"} <= fields(AcquireTaskRequest)
    assert {"token", "task"} <= fields(AcquireTaskResponse)
    assert {"success"} <= fields(SendTaskHeartbeatResponse)
    assert TaskType.CLIENT_APP == "flwr-clientapp"
    assert (SubStatus.COMPLETED, SubStatus.FAILED) == ("completed", "failed")


def test_the_clients_and_interceptors_take_what_they_are_given() -> None:
    given = {"server_address", "insecure", "root_certificates", "interceptors"}
    assert given <= set(parameters(RuntimeHttpClient.from_server_address))
    assert {"base_url", "interceptors", "verify", "timeout"} <= set(parameters(FleetHttpClient.__init__))
    assert parameters(SuperExecAuthHttpInterceptor.__init__) == ["self", "master_secret", "protected_methods"]
    assert parameters(NodeAuthHttpInterceptor.__init__) == ["self", "private_key", "public_key"]
    assert parameters(HeartbeatSender.__init__) == ["self", "heartbeat_fn"]
    assert fields(DeactivateNodeRequest) == {"node_id"}


def test_the_paths_that_the_tunnel_looks_for_are_flowers() -> None:
    source = inspect.getsource(FleetHttpClient)
    paths = set(re.findall(r'path="(/[^"]+)"', source))

    assert {POLL, RECEIVED} <= paths
    assert all(path.startswith(FLEET) for path in paths)


def test_a_supernode_confirms_a_message_once_it_has_all_of_it() -> None:
    """The worker is woken by that request."""
    source = inspect.getsource(start_client_internal._pull_and_store_message)

    assert source.index("pull_objects(") < source.index("confirm_message_received(run_id")


def test_a_supernode_writes_its_node_id_into_its_log(tmp_path: Path) -> None:
    assert 'log(INFO, "SuperNode ID: %s", node_id)' in inspect.getsource(start_client_internal.start_client_internal)

    log = tmp_path / "supernode.log"
    assert last_node_id(log) is None
    log.write_text("\x1b[92mINFO \x1b[0m:      SuperNode ID: 17\nmore\nINFO : SuperNode ID: 18446744073709551615\n")
    assert last_node_id(log) == 18446744073709551615


def test_a_supernode_takes_leave_when_it_ends() -> None:
    assert "client.DeactivateNode(" in inspect.getsource(fleet_http_connection.http_request_response)


def supernode(folder: Path) -> SuperNode:
    return SuperNode(
        home=folder / "flower",
        keys=folder / "keys",
        superlink="127.0.0.1:9",
        root_certificate=folder / "flower" / "loopback.crt",
        secret_file=folder / "flower" / "superexec.secret",
        log=folder / "logs" / "supernode.log",
    )


def test_every_option_of_the_command_line_is_one_of_flowers(tmp_path: Path) -> None:
    command = supernode(tmp_path).command(4711)
    said = subprocess.run(
        [str(FLOWER), "--help"], env=quiet_environment(tmp_path), capture_output=True, text=True, check=True, timeout=60
    )

    options = {word for word in command if word.startswith("--")}
    assert {option for option in options if f"{option} " not in said.stdout} == set()
    assert command[0] == str(FLOWER)


def test_the_command_line_holds_no_secret_and_listens_on_loopback(tmp_path: Path) -> None:
    node = supernode(tmp_path)
    command = node.command(4711)

    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--isolation") + 1] == "process"
    assert command[command.index("--superexec-auth-secret-file") + 1] == str(node.secret_file)
    assert "--insecure" not in command


def test_a_flower_process_is_quiet_and_meets_no_proxy(tmp_path: Path) -> None:
    environment = quiet_environment(tmp_path, {"PATH": "/bin", "HTTPS_PROXY": "http://proxy", "http_proxy": "x"})

    assert environment["PATH"] == "/bin"
    assert not {"HTTPS_PROXY", "http_proxy"} & environment.keys()
    assert environment["NO_PROXY"] == "*"
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert environment["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert environment["FLWR_HOME"] == str(tmp_path)


def test_flower_reads_the_node_key_and_sends_the_text_that_is_registered(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key  # as flower-supernode reads it

    made = load_or_create_node_key(tmp_path)
    read = load_ssh_private_key((tmp_path / "node.key").read_bytes(), None)
    assert isinstance(read, ec.EllipticCurvePrivateKey)
    assert read.private_numbers() == made.private_numbers() == load_node_key(tmp_path).private_numbers()

    sent: list[httpx.Request] = []
    request = httpx.Request("POST", "https://127.0.0.1/")
    context: Any = type("Context", (), {"request": request, "rpc_method": "x", "message": None})

    def call(context: Any) -> httpx.Response:
        sent.append(context.request)
        return httpx.Response(200, request=context.request)

    NodeAuthHttpInterceptor(read, read.public_key()).intercept(context, call)

    assert sent[0].headers["flwr-public-key"] == node_key_text(made)
    RegistrationRequest(
        site_id="clinic-1", public_key="ab" * 32, node_key=node_key_text(made), tls_request="PEM"
    )  # which checks that it is spelt as Flower spells it


def test_a_start_waits_some_seconds_for_a_gateway_that_does_not_answer_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A SuperLink that still takes the node for online would not let it in for a minute."""
    node, asked = supernode(tmp_path), []
    node.log.parent.mkdir()
    node.log.write_text("SuperNode ID: 4711\n")

    def leave(self: SuperNode) -> bool:
        asked.append(len(asked))
        self._unheard = len(asked) < 3
        return not self._unheard

    monkeypatch.setattr(SuperNode, "leave", leave)
    monkeypatch.setattr(supernode_module, "_LEAVE_EVERY_S", 0.0)
    monkeypatch.setattr(supernode_module, "spawn", lambda command, log, env: command)
    node.start()

    assert asked == [0, 1, 2]


def test_a_node_that_never_connected_has_no_leave_to_take(tmp_path: Path) -> None:
    assert supernode(tmp_path).leave() is False


@pytest.mark.parametrize("status", [200, 401])
def test_leave_is_taken_with_the_id_that_was_written_last(tmp_path: Path, status: int) -> None:
    """Over the real client, against a listener that answers as a SuperLink or a gateway would."""
    from tests.support.gatekeeping import Coordinator, SmallGateway

    coordinator = Coordinator(tmp_path / "pki")
    gateway = SmallGateway(coordinator.authority, answer=lambda heard: (status, b""))
    node = supernode(tmp_path)
    load_or_create_node_key(node.keys)
    node.log.parent.mkdir()
    node.log.write_text("SuperNode ID: 4711\n")
    open_door = gateway.context()
    open_door.verify_mode = ssl.CERT_NONE
    gateway.context = lambda: open_door  # type: ignore[method-assign]
    node.superlink, node.root_certificate = f"localhost:{gateway.port}", tmp_path / "pki" / "ca.crt"
    with gateway.serving():
        assert node.leave() is (status == 200)

    [request] = gateway.requests
    assert request.path == "/v1/fleet/deactivate-node"
    assert DeactivateNodeRequest.FromString(request.body).node_id == 4711
