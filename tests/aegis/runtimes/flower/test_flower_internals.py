"""What the platform's side uses of Flower below its public surface. An upgrade that moves any of it turns this red."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest
from flwr.proto import control_pb2, runtime_pb2
from flwr.supercore.interceptors import SuperExecAuthHttpInterceptor
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.cli.flower_superlink import _parse_args_run_superlink
from flwr.superlink.grid import HttpGrid

from aegis.runtimes.flower.control import empty_app
from aegis.runtimes.flower.run_driver import ACQUIRE_METHOD, SERVER_TASK
from aegis.runtimes.flower.superlink import SuperLinkFiles, superlink_command

PARAMETERS = {
    "flwr.superlink.grid.http_grid:HttpGrid.__init__": {
        "runtime_api_address",
        "insecure",
        "root_certificates",
        "token",
    },
    "flwr.supercore.runtime:RuntimeHttpClient.from_server_address": {
        "server_address",
        "insecure",
        "root_certificates",
        "interceptors",
        "retry_invoker",
    },
    "flwr.supercore.control.control_http_client:ControlHttpClient.from_server_address": {
        "server_address",
        "insecure",
        "root_certificates",
        "interceptors",
        "retry_invoker",
    },
    "flwr.supercore.inflatable.inflatable_utils:pull_objects": {
        "object_ids",
        "pull_object_fn",
        "max_concurrent_pulls",
        "max_time",
        "max_tries_per_object",
        "initial_backoff",
        "backoff_cap",
    },
    "flwr.supercore.inflatable.inflatable_utils:inflate_object_from_contents": {
        "object_id",
        "object_contents",
        "keep_object_contents",
        "objects",
    },
    "flwr.supercore.inflatable.inflatable_protobuf_utils:make_pull_object_fn_protobuf": {
        "pull_object_protobuf",
        "node",
        "run_id",
    },
    "flwr.app.message:make_message": {"metadata", "content", "error"},
    "flwr.cli.build:build_fab_from_files": {"files"},
}

FIELDS = {
    control_pb2.RegisterNodeRequest: {"public_key", "name"},
    control_pb2.StartRunRequest: {"fab"},
    control_pb2.StartRunResponse: {"run_id"},
    control_pb2.StopRunRequest: {"run_id"},
    control_pb2.ListNodesResponse: {"nodes_info"},
    control_pb2.ListRunsResponse: {"run_dict"},
    runtime_pb2.AcquireTaskRequest: {"supported_task_types"},
    runtime_pb2.AcquireTaskResponse: {"task", "token"},
    runtime_pb2.PullTaskInputResponse: {"task_id", "run", "context"},
    runtime_pb2.PullAppMessagesRequest: {"message_ids"},
    runtime_pb2.PullAppMessagesResponse: {"messages_list", "message_object_trees"},
    runtime_pb2.SendTaskHeartbeatResponse: {"success"},
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_it_still_takes_these_parameters(name: str) -> None:
    module, _, path = name.partition(":")
    target = importlib.import_module(module)
    for part in path.split("."):
        target = getattr(target, part)

    assert set(inspect.signature(target).parameters) - {"self", "cls"} == PARAMETERS[name]


@pytest.mark.parametrize("message", FIELDS, ids=lambda message: message.__name__)
def test_the_protocol_still_has_these_fields(message: type) -> None:
    assert set(message.DESCRIPTOR.fields_by_name) >= FIELDS[message]  # type: ignore[attr-defined]


def test_the_grid_still_asks_the_retrying_that_it_is_given() -> None:
    assert "retry_invoker=self._retry_invoker" in inspect.getsource(HttpGrid._connect)


def test_messages_are_still_stamped_with_a_process_wide_identity() -> None:
    assert {"_task_id", "_run_id", "_node_id"} <= vars(TaskIdentity).keys()


def test_acquiring_a_task_is_still_what_the_secret_protects() -> None:
    superexec = importlib.import_module("flwr.supercore.superexec.run_superexec")
    assert ACQUIRE_METHOD in superexec._SUPEREXEC_AUTH_METHODS
    assert set(inspect.signature(SuperExecAuthHttpInterceptor).parameters) == {"master_secret", "protected_methods"}


def test_the_task_of_a_run_still_has_this_name() -> None:
    assert importlib.import_module("flwr.supercore.constant").TaskType.SERVER_APP == SERVER_TASK


def test_superlink_still_takes_our_command_line(tmp_path: Path) -> None:
    files = SuperLinkFiles(tmp_path / "flower", tmp_path / "pki")
    options = _parse_args_run_superlink().parse_args(superlink_command(files, port=4242, health_port=4243)[1:])

    assert (options.host, options.port, options.isolation) == ("127.0.0.1", 4242, "process")
    assert options.enable_supernode_auth
    assert not options.insecure
    assert options.runtime_dependency_install is False
    assert options.superexec_auth_secret_file == str(files.secret)
    assert options.database == str(files.database)


def test_flower_still_builds_an_app_that_holds_no_code() -> None:
    assert 0 < len(empty_app()) < 2000
