"""The gate before the cells of FLARE's server, without FLARE's processes: what is refused, and what is told of whom.

The gate takes the place of functions of a process. It is installed in processes of their own here, never in this one.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from nvflare.apis.event_type import EventType
from nvflare.apis.shareable import Shareable
from nvflare.fuel.common.exit_codes import ProcessExitCode
from nvflare.fuel.f3.cellnet.cell import Adapter
from nvflare.fuel.f3.cellnet.defs import CellChannel, Encoding, MessageHeaderKey, ReturnCode
from nvflare.fuel.f3.message import Message
from nvflare.fuel.f3.streaming.stream_const import StreamHeaderKey
from nvflare.fuel.utils import fobs
from nvflare.private.defs import JobFailureMsgKey
from nvflare.private.fed.utils.fed_utils import nvflare_fobs_initialize

from aegis.errors import RunFolderError
from aegis.runtimes.nvflare import cell_gate
from aegis.runtimes.nvflare.stream_budget import StreamBudget
from aegis.runtimes.nvflare.violations import Violations
from aegis.runtimes.nvflare.workflow import require_gate
from tests.aegis.runtimes.nvflare.test_cell_rules import SERVERS_JOB, SITES_JOB, message, streamed

nvflare_fobs_initialize()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What the gate tells of whom."""
    strikes, said = Violations(), list[tuple[str, str]]()
    strikes.subscribe(lambda site, why: said.append((site, why)))
    monkeypatch.setattr(cell_gate, "OFFENCES", strikes)
    return said


def cell(name: str) -> Any:
    return SimpleNamespace(get_fqcn=lambda: name, get_fobs_context=dict)


def test_a_message_that_is_refused_is_dropped_and_told(told: list[tuple[str, str]]) -> None:
    check = cell_gate._checked(cell(SERVERS_JOB))

    assert check(streamed(CellChannel.SERVER_COMMAND, "get_task", **{StreamHeaderKey.STREAM_ID: 1})) is None
    assert told == []
    assert check(streamed(CellChannel.AUX_COMMUNICATION, "fed.event")) is not None
    assert told == [("clinic-1", "streams aux_communication:fed.event")]


def test_more_bytes_than_a_message_has_are_not_kept(
    told: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cell_gate, "STREAMS", StreamBudget())
    check = cell_gate._checked(cell(SERVERS_JOB))

    def chunk(number: Any) -> Message:
        sent = streamed(CellChannel.SERVER_COMMAND, "submit_update", **{StreamHeaderKey.STREAM_ID: number})
        sent.payload = bytes(32 << 20)
        return sent

    assert [check(chunk(1)) is None for _ in range(3)] == [True, True, False]
    assert check(chunk(None)) is not None
    assert told == [
        ("clinic-1", "sends more bytes than a message of this job has"),
        ("clinic-1", "sends a stream without a number"),
    ]


def encoded(payload: Any) -> Message:
    sent = message(**{MessageHeaderKey.PAYLOAD_ENCODING: Encoding.FOBS})
    sent.payload = payload
    return sent


def test_a_payload_is_looked_through_before_flare_decodes_it(told: list[tuple[str, str]]) -> None:
    check = cell_gate._checked(cell("server"))
    good = fobs.dumps(Shareable())

    assert check(encoded(good)) is None
    assert check(encoded([good[:7], memoryview(good)[7:]])) is None
    assert check(encoded(good[:-1])) is not None
    assert check(encoded(None)) is not None
    assert [site for site, _ in told] == ["clinic-1", "clinic-1"]


def test_what_is_passed_on_is_looked_through_where_it_is_decoded(told: list[tuple[str, str]]) -> None:
    sent = encoded(b"no serialisation")
    sent.set_header(MessageHeaderKey.DESTINATION, SITES_JOB)

    assert cell_gate._checked(cell("server"))(sent) is None
    assert told == []


@dataclass
class Flare:
    """FLARE's adapter of a job's cell, as far as the gate asks it."""

    called: list[Any] = field(default_factory=list)
    answered: list[tuple[Any, ...]] = field(default_factory=list)
    cell: Any = field(default_factory=lambda: cell(SERVERS_JOB))

    def call(self, adapter: Any, future: Any, *args: Any, **kwargs: Any) -> None:
        self.called.append((future.result(), dict(future.headers)))

    def _send_response(self, *answer: Any) -> None:
        self.answered.append(answer)

    def stream(self, payload: Any, *, origin: str = SITES_JOB, encoding: str = Encoding.FOBS) -> None:
        headers = {MessageHeaderKey.ORIGIN: origin, StreamHeaderKey.PAYLOAD_ENCODING: encoding}
        headers |= {StreamHeaderKey.CHANNEL: "server_command", StreamHeaderKey.TOPIC: "submit_update"}
        future = SimpleNamespace(headers={**headers, StreamHeaderKey.STREAM_REQ_ID: "7"}, result=lambda: payload)
        cell_gate._streamed(self.call, self, future, (), {})


def test_a_result_reaches_flare_decoded(told: list[tuple[str, str]]) -> None:
    flare = Flare()

    flare.stream(fobs.dumps(Shareable({"a": b"b"})))

    ((payload, headers),) = flare.called
    assert (type(payload), payload["a"]) == (Shareable, b"b")
    assert StreamHeaderKey.PAYLOAD_ENCODING not in headers
    assert told == []


@pytest.mark.parametrize("payload", [b"garbage", fobs.dumps({"a": 1}), fobs.dumps(["a"]), fobs.dumps(3)])
def test_a_result_that_cannot_be_decoded_never_reaches_flare(told: list[tuple[str, str]], payload: bytes) -> None:
    flare = Flare()

    flare.stream(payload)

    assert flare.called == []
    assert [site for site, _ in told] == ["clinic-1"]
    ((reply, request, *_, origin, _secure),) = flare.answered
    assert reply.get_header(MessageHeaderKey.RETURN_CODE) == ReturnCode.INVALID_REQUEST
    assert (request, origin) == ("7", SITES_JOB)


def test_an_object_that_is_plain_and_yet_none_is_refused_by_flares_own_decoding(told: list[tuple[str, str]]) -> None:
    kind = {"__fobs_type__": "nvflare.apis.dxo.DataKind", "__fobs_data__": "NO_SUCH_KIND"}
    kind["__fobs_dc__"] = "nvflare.fuel.utils.fobs.decomposer.EnumTypeDecomposer"
    from tests.aegis.runtimes.nvflare.test_plain_payloads import main

    flare = Flare()
    flare.stream(main(kind))

    assert flare.called == []
    assert told == [("clinic-1", "sends an undecodable payload (KeyError)")]


def test_what_the_servers_own_processes_send_is_flares_matter(told: list[tuple[str, str]]) -> None:
    flare = Flare()

    flare.stream(b"anything", origin="server")

    assert [payload for payload, _ in flare.called] == [b"anything"]
    assert told == []


@pytest.mark.parametrize("code", [ProcessExitCode.EXCEPTION, ProcessExitCode.UNSAFE_COMPONENT, "anything", None])
def test_a_sites_report_says_nothing_against_the_job(code: Any) -> None:
    request = message()
    request.payload = {JobFailureMsgKey.JOB_ID: "1", JobFailureMsgKey.CODE: code}

    assert cell_gate._without_failure(request).payload == {JobFailureMsgKey.JOB_ID: "1", JobFailureMsgKey.CODE: 0}


def test_every_job_is_told_of_an_offence_that_the_parent_process_saw() -> None:
    sent: list[Any] = []
    parent = SimpleNamespace(agents={"clinic-1": 1, "server.a": 1, "server.b": 1})
    parent.fire_and_forget = lambda *arguments, **_: sent.append(arguments)
    notices = cell_gate._Notices(parent)

    notices.tell("clinic-1", "asks admin:x")
    notices.tell("clinic-1", "asks admin:x")

    ((_, _, jobs, notice),) = sent
    assert jobs == ["server.a", "server.b"]
    assert notice.payload == {"site": "clinic-1", "why": "asks admin:x"}


def test_a_server_that_starts_lists_no_job_as_running() -> None:
    asked: list[Any] = []
    runner = SimpleNamespace(update_abnormal_finished_jobs=lambda running, _: asked.append(running))
    context = SimpleNamespace(get_engine=lambda: SimpleNamespace(job_runner=runner))
    gate = cell_gate.CellGate.__new__(cell_gate.CellGate)

    gate.handle_event(EventType.START_RUN, context)
    assert asked == []
    gate.handle_event(EventType.SYSTEM_START, context)

    assert asked == [[]]
    assert runner.client_outcome_wait_timeout <= 60


def test_no_coordinator_works_behind_cells_without_a_gate() -> None:
    with pytest.raises(RunFolderError, match="no gate before its cells"):
        require_gate()


def test_this_process_has_flares_own_functions() -> None:
    assert Adapter.call.__module__ == "nvflare.fuel.f3.cellnet.cell"
    assert not cell_gate.is_guarded()


@pytest.fixture(scope="module")
def installed() -> str:
    """What a process with the gate prints of FLARE's functions."""
    code = """
from nvflare.fuel.f3.cellnet.core_cell import CoreCell
from nvflare.fuel.f3.cellnet.cell import Adapter
from nvflare.private.fed.server.fed_server import FederatedServer
from nvflare.private.fed.server.admin import FedAdminServer
from nvflare.private.fed.server import job_runner
from nvflare.apis.impl.wf_comm_server import WFCommServer
from aegis.runtimes.nvflare.cell_gate import CellGate, is_guarded
from aegis.runtimes.nvflare.workflow import require_gate
CellGate(); once = CoreCell.start; CellGate()
functions = (CoreCell.start, Adapter.call, FederatedServer.process_job_failure, WFCommServer._job_policy_violated)
functions += (FedAdminServer.send_requests, job_runner.check_client_replies)
print(sorted({function.__module__ for function in functions}), is_guarded(), CoreCell.start is once)
require_gate()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


def test_the_gate_takes_the_place_of_six_functions_once(installed: str) -> None:
    room = "aegis.runtimes.nvflare"
    assert installed == f"['{room}.admin_answers', '{room}.cell_gate'] True True\n"
