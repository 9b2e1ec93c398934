"""What is used of FLARE beyond its documented interfaces; an upgrade that moves any of it fails here first."""

from __future__ import annotations

import inspect
from pathlib import Path

import nvflare
import pytest
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.wf_comm_server import WFCommServer
from nvflare.apis.workspace import Workspace
from nvflare.app_common.workflows.model_controller import ModelController
from nvflare.fuel.f3.cellnet.cell import Adapter, Cell
from nvflare.fuel.f3.cellnet.core_cell import CoreCell
from nvflare.fuel.flare_api.flare_api import Session, new_secure_session
from nvflare.private.fed.app.simulator.simulator_runner import SimulatorRunner
from nvflare.private.fed.server.fed_server import FederatedServer
from nvflare.private.fed.server.job_runner import JobRunner
from nvflare.private.fed.server.server_runner import ServerRunner

from aegis.runtimes.nvflare.provisioning import Kits, Project, provision
from aegis.runtimes.nvflare.workflow import tolerate_refusals


def test_the_tested_version_is_installed() -> None:
    assert nvflare.__version__ == "2.9.0"


def test_three_return_codes_of_one_site_would_end_the_job_unless_they_are_borne() -> None:
    assert {ReturnCode.UNSAFE_JOB, ReturnCode.TASK_UNKNOWN, ReturnCode.RUN_MISMATCH} == set(
        ServerRunner.ABORT_RETURN_CODES
    )
    assert "rc in self.ABORT_RETURN_CODES" in inspect.getsource(ServerRunner)
    context, runner = FLContext(), ServerRunner.__new__(ServerRunner)
    context.set_prop(FLContextKey.RUNNER, runner, private=True, sticky=True)

    tolerate_refusals(context)

    assert runner.ABORT_RETURN_CODES == []


def test_what_the_gate_takes_the_place_of_is_as_it_was() -> None:
    streamed, received = inspect.getsource(Adapter.call), inspect.getsource(CoreCell._process_received_msg)
    decoding, exiting = streamed.index("decode_payload(request, StreamHeaderKey.PAYLOAD_ENCODING"), "os._exit(1)"
    assert exiting in streamed[decoding:]
    assert received.index("in_filter_reg.find") < received.index("_process_request(")
    assert "in_filter" not in inspect.getsource(CoreCell._process_request)
    assert list(inspect.signature(Adapter._send_response).parameters)[1:] == [
        "response", "stream_req_id", "req_id", "channel", "topic", "origin", "secure",
    ]  # fmt: skip
    assert "payload.get(JobFailureMsgKey.CODE)" in inspect.getsource(FederatedServer.process_job_failure)
    assert "client_outcome_wait_timeout" in inspect.getsource(JobRunner.__init__)


def test_an_error_type_that_a_receiver_reports_would_end_a_job() -> None:
    source = inspect.getsource(Cell._process_stream_error)

    assert "error_type == BlobSizeError.__name__" in source
    assert "os._exit(1)" in source


def test_signatures_are_as_they_were() -> None:
    wanted = {
        SimulatorRunner.__init__: {"job_folder", "workspace", "clients", "threads", "max_clients", "end_run_for_all"},
        SimulatorRunner.run_process: {"return_dict"},
        WFCommServer.get_client_disconnect_time: {"client_name"},
        ModelController.process_result_of_unknown_task: {"client", "task_name", "client_task_id", "result", "fl_ctx"},
        JobRunner.update_abnormal_finished_jobs: {"running_job_ids", "fl_ctx"},
        CoreCell.add_incoming_filter: {"channel", "topic", "cb"},
        CoreCell.register_request_cb: {"channel", "topic", "cb"},
        CoreCell.fire_and_forget: {"channel", "topic", "targets", "message", "optional"},
        Session.submit_job: {"job_definition_path", "submit_token"},
        Session.list_jobs: {"submit_token"},
        new_secure_session: {"username", "startup_kit_location", "timeout"},
    }
    missing = {
        function.__qualname__: names - set(inspect.signature(function).parameters) for function, names in wanted.items()
    }

    assert not any(missing.values()), missing


@pytest.fixture(scope="module")
def kits(tmp_path_factory: pytest.TempPathFactory) -> Kits:
    folder = tmp_path_factory.mktemp("provisioned") / "kits"
    return provision(Project("aegis", "localhost", 8002, "you@example.org", ["clinic-1"]), folder)


def test_kits_are_laid_out_as_they_were(kits: Kits) -> None:
    assert (kits.server / "startup" / "fed_server.json").is_file()
    assert (kits.admin / "startup" / "fed_admin.json").is_file()
    assert (kits.sites["clinic-1"] / "startup" / "fed_client.json").is_file()


@pytest.mark.parametrize("kind", ["server", "client"])
def test_a_kits_script_starts_what_a_proof_of_concept_starts(kits: Kits, kind: str) -> None:
    kit = kits.server if kind == "server" else kits.sites["clinic-1"]
    script = (kit / "startup" / "sub_start.sh").read_text()

    assert f"nvflare.private.fed.app.{kind}.{kind}_train -m" in script
    assert f"-s fed_{kind}.json --set secure_train=true" in script
    assert "org=federation config_folder=config" in script


def test_flare_reads_the_guards_where_they_are_written(kits: Kits) -> None:
    workspace = Workspace(str(kits.sites["clinic-1"]), "clinic-1")
    local = Path(workspace.get_site_config_dir())

    assert local == kits.sites["clinic-1"] / "local"
    assert Path(workspace.get_resources_file_path()) == local / "resources.json"
    assert Path(workspace.get_authorization_file_path()) == local / "authorization.json"
    assert Path(workspace.get_site_privacy_file_path()) == local / "privacy.json"
