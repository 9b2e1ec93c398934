"""The agent's socket: for the owner alone, one frame each way, reason codes instead of reasons."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreason_enclave.agent.logs import AgentLog
from coreason_enclave.agent.order_queue import SerialHandler
from coreason_enclave.agent.unix_socket import serving_socket
from coreason_enclave.crypto.encoding import canonical_json
from coreason_enclave.errors import (
    ConfigurationError,
    EnclaveError,
    EnvelopeError,
    JobRejected,
    Reason,
    TrainingAborted,
)
from coreason_enclave.ipc.client import AgentClient
from coreason_enclave.ipc.frames import KINDS, MAX_HEADER_BYTES, encode_frame, read_frame
from coreason_enclave.ipc.streams import SOCKET_FILE, exact_reader, socket_path
from coreason_enclave.wire.handler import Aborted, RequestKind, never
from coreason_enclave.wire.updates import SealedMessage
from tests.support.gatekeeping import wait_until

ORDER = SealedMessage(b"an order", b"base" * 100_000, b"roll-call")
ORDERED = {"version": 1, "kind": "train"}
ANSWER = SealedMessage(b"an update", b"weights" * 100_000)


class Echo:
    """Answers at once, or when it is let; refuses or fails on demand."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, SealedMessage]] = []
        self.raises: Exception | None = None
        self.inside = threading.Semaphore(0)
        self.let = threading.Event()
        self.let.set()
        self.aborted: Aborted = never

    def handle(self, kind: RequestKind, message: SealedMessage, *, aborted: Aborted = never) -> SealedMessage | None:
        self.aborted = aborted
        self.heard.append((kind, message))
        self.inside.release()
        assert self.let.wait(20)
        if self.raises is not None:
            raise self.raises
        return None if kind is RequestKind.VALIDATE else ANSWER


@pytest.fixture
def handler() -> Echo:
    return Echo()


@pytest.fixture
def folder(tmp_path: Path, handler: Echo) -> Iterator[Path]:
    with serving_socket(tmp_path, handler, lambda: {"site_id": "clinic-1", "busy": False}):
        yield tmp_path


def send(folder: Path, data: bytes, *, finish: bool = True) -> bytes:
    """What the agent answers to these bytes before it closes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream, socket_path(folder) as path:
        stream.settimeout(10)
        stream.connect(path)
        stream.sendall(data)
        if finish:
            stream.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := stream.recv(1 << 16):
            answer += chunk
        return answer


def header_of(answer: bytes) -> dict[str, Any]:
    position = 0

    def read(count: int) -> bytes:
        nonlocal position
        position += count
        return answer[position - count : position]

    return read_frame(read)[0]


def framed(header: dict[str, Any], rest: bytes = b"") -> bytes:
    encoded = canonical_json(header)
    return len(encoded).to_bytes(4, "big") + encoded + rest


def test_an_order_and_its_answer_pass_whole(folder: Path, handler: Echo) -> None:
    assert AgentClient(folder).handle(RequestKind.TRAIN, ORDER) == ANSWER
    for kind in ("enrol", "attest", "witness", "submit"):
        assert AgentClient(folder).handle(RequestKind(kind), ORDER) == ANSWER
    assert handler.heard == [(kind, ORDER) for kind in ("train", "enrol", "attest", "witness", "submit")]


def test_a_validation_is_answered_without_a_message(folder: Path, handler: Echo) -> None:
    AgentClient(folder).handle(RequestKind.VALIDATE, ORDER)

    assert handler.heard == [("validate", ORDER)]
    assert header_of(send(folder, encode_frame({"kind": "validate"}, ORDER))) == {}


def test_every_kind_but_status_hands_a_message_over(folder: Path, handler: Echo) -> None:
    for kind in KINDS[:-1]:
        assert "refused" not in header_of(send(folder, encode_frame({"kind": kind}, ORDER)))
    assert (KINDS[-1], [kind for kind, _ in handler.heard]) == ("status", list(KINDS[:-1]))


def test_who_hangs_up_wants_no_answer_and_who_has_only_finished_sending_does(tmp_path: Path, handler: Echo) -> None:
    handler.let.clear()
    with serving_socket(tmp_path, handler, dict), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        with socket_path(tmp_path) as path:
            stream.connect(path)
        stream.sendall(encode_frame({"kind": "train"}, ORDER))
        stream.shutdown(socket.SHUT_WR)
        assert handler.inside.acquire(timeout=20)
        assert not handler.aborted()
        stream.close()
        wait_until(handler.aborted, what="the agent hears that its client has gone")
        handler.let.set()


def test_a_client_that_gives_up_hangs_up_and_says_so(folder: Path, handler: Echo) -> None:
    handler.let.clear()
    gives_up = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(AgentClient(folder).handle, RequestKind.TRAIN, ORDER, aborted=gives_up.is_set)
        assert handler.inside.acquire(timeout=20)
        gives_up.set()
        with pytest.raises(TrainingAborted):
            asking.result(timeout=20)
    wait_until(handler.aborted, what="the agent hears that its client has gone")
    handler.let.set()


def test_whoever_gave_up_before_its_turn_came_is_not_begun_with(tmp_path: Path, handler: Echo) -> None:
    answering = SerialHandler(handler, AgentLog({}, stream=_Lines([])))
    with pytest.raises(TrainingAborted):
        answering.handle(RequestKind.TRAIN, ORDER, aborted=lambda: True)

    assert (handler.heard, answering.refused) == ([], 1)


def test_a_client_waits_no_longer_than_it_said(folder: Path, handler: Echo) -> None:
    handler.let.clear()
    with pytest.raises(EnclaveError) as late:
        AgentClient(folder, timeout_s=0.2).handle(RequestKind.TRAIN, ORDER)
    handler.let.set()
    assert late.value.reason is Reason.TRANSPORT


def test_the_status_is_what_the_agent_says(folder: Path) -> None:
    assert AgentClient(folder).status() == {"site_id": "clinic-1", "busy": False}


def test_only_the_owner_may_open_it(folder: Path) -> None:
    assert (folder / SOCKET_FILE).stat().st_mode & 0o777 == 0o600


def test_the_socket_goes_with_the_agent(tmp_path: Path, handler: Echo) -> None:
    with serving_socket(tmp_path, handler, dict):
        pass

    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigurationError, match="no agent is running"):
        AgentClient(tmp_path).status()


def test_a_socket_that_a_killed_agent_left_is_replaced(tmp_path: Path, handler: Echo) -> None:
    with socket.socket(socket.AF_UNIX) as left, socket_path(tmp_path) as path:
        left.bind(path)
    with pytest.raises(ConfigurationError, match="no agent is running"):
        AgentClient(tmp_path).status()

    with serving_socket(tmp_path, handler, lambda: {"here": True}):
        assert AgentClient(tmp_path).status() == {"here": True}


def test_a_folder_whose_path_is_longer_than_a_socket_address_serves(tmp_path: Path, handler: Echo) -> None:
    deep = tmp_path / ("long" * 30) / ("longer" * 20)
    deep.mkdir(parents=True)
    with serving_socket(deep, handler, lambda: {"here": True}):
        assert AgentClient(deep).status() == {"here": True}


def test_a_refusal_is_a_reason_code_and_nothing_more(folder: Path, handler: Echo) -> None:
    handler.raises = JobRejected("row 17 says so", reason=Reason.POLICY)

    answer = send(folder, encode_frame({"kind": "train"}, ORDER))

    assert header_of(answer) == {"refused": "policy"}
    assert b"17" not in answer
    with pytest.raises(EnclaveError) as refused:
        AgentClient(folder).handle(RequestKind.TRAIN, ORDER)
    assert refused.value.reason is Reason.POLICY


def test_a_fault_within_the_agent_says_internal_and_quotes_nothing(tmp_path: Path, handler: Echo) -> None:
    handler.raises = ZeroDivisionError("patient p007")
    said: list[str] = []
    log = AgentLog({}, stream=_Lines(said))
    with serving_socket(tmp_path, SerialHandler(handler, log), dict):
        answer = send(tmp_path, encode_frame({"kind": "train"}, ORDER))

    assert header_of(answer) == {"refused": "internal"}
    assert "ZeroDivisionError" in "".join(said)
    assert "p007" not in "".join(said) + answer.decode(errors="replace")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ((0).to_bytes(4, "big"), "malformed"),
        ((MAX_HEADER_BYTES + 1).to_bytes(4, "big"), "oversized"),
        (b"GET / HTTP/1.1\r\n\r\n", "oversized"),
        ((4).to_bytes(4, "big") + b"junk", "malformed"),
        (framed({"kind": "status"}), "malformed"),
        (framed({"version": 2, "kind": "status"}), "malformed"),
        (framed({"version": 1, "kind": "shutdown"}), "malformed"),
        (framed({"version": 1, "kind": "status", "more": 1}), "malformed"),
        (framed(ORDERED), "malformed"),
        (framed(ORDERED | {"parts": {"envelope": 1}}), "malformed"),
        (framed(ORDERED | {"parts": {"envelope": 0, "arrays": -1, "roll_call": 0}}), "malformed"),
        (
            framed(ORDERED | {"parts": {"envelope": 0, "arrays": True, "roll_call": 0}}),
            "malformed",
        ),
        (framed(ORDERED | {"parts": {"envelope": 0, "arrays": 1e3, "roll_call": 0}}), "malformed"),
        (
            framed(ORDERED | {"parts": {"envelope": 2**21, "arrays": 0, "roll_call": 0}}),
            "oversized",
        ),
        (
            framed(ORDERED | {"parts": {"envelope": 0, "arrays": 2**40, "roll_call": 0}}),
            "oversized",
        ),
        (encode_frame({"kind": "status"}, ORDER), "malformed"),
    ],
)
def test_a_frame_that_is_none_is_refused_and_handed_to_nobody(
    folder: Path, handler: Echo, data: bytes, reason: str
) -> None:
    assert header_of(send(folder, data)) == {"refused": reason}
    assert handler.heard == []
    assert AgentClient(folder).status()["site_id"] == "clinic-1"


@pytest.mark.parametrize("length", [0, 3, 10, 60])
def test_a_client_that_stops_within_a_frame_gets_no_answer(folder: Path, handler: Echo, length: int) -> None:
    assert send(folder, encode_frame({"kind": "train"}, ORDER)[:length]) == b""
    assert handler.heard == []


def test_two_clients_are_served_side_by_side_and_their_orders_one_after_the_other(
    tmp_path: Path, handler: Echo
) -> None:
    handler.let.clear()
    answering = SerialHandler(handler, AgentLog({}, stream=_Lines([])))
    with serving_socket(tmp_path, answering, lambda: {"busy": answering.busy}):
        asking = [
            threading.Thread(target=AgentClient(tmp_path).handle, args=(RequestKind.TRAIN, ORDER)) for _ in range(2)
        ]
        for thread in asking:
            thread.start()
        assert handler.inside.acquire(timeout=20)
        assert AgentClient(tmp_path).status() == {"busy": True}  # while both wait
        assert not handler.inside.acquire(blocking=False)
        handler.let.set()
        for thread in asking:
            thread.join(20)

    assert [kind for kind, _ in handler.heard] == ["train", "train"]
    assert (answering.busy, answering.answered, answering.refused) == (False, 2, 0)


def test_a_folder_where_no_socket_can_be_made_is_refused(tmp_path: Path, handler: Echo) -> None:
    (tmp_path / SOCKET_FILE).mkdir()

    with pytest.raises(ConfigurationError, match="cannot listen"), serving_socket(tmp_path, handler, dict):
        pass

    assert [path.name for path in tmp_path.iterdir()] == [SOCKET_FILE]


def test_whoever_sees_the_socket_can_connect(tmp_path: Path, handler: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[bool] = []

    def watched(listener: socket.socket, backlog: int) -> None:
        begun.append((tmp_path / SOCKET_FILE).exists())
        _listen(listener, backlog)

    _listen = socket.socket.listen
    monkeypatch.setattr(socket.socket, "listen", watched)
    with serving_socket(tmp_path, handler, dict):
        assert begun == [False]
        assert AgentClient(tmp_path).status() == {}


def test_an_agent_killed_before_it_listened_is_in_nobodys_way(tmp_path: Path, handler: Echo) -> None:
    with socket.socket(socket.AF_UNIX) as dead, socket_path(tmp_path, f".{SOCKET_FILE}.new") as path:
        dead.bind(path)

    with serving_socket(tmp_path, handler, dict):
        assert AgentClient(tmp_path).status() == {}
    assert list(tmp_path.iterdir()) == []


def test_the_umask_is_as_it_was(folder: Path) -> None:
    before = os.umask(0o022)
    os.umask(before)
    assert before != 0o177


@given(st.binary(max_size=300))
def test_any_bytes_are_a_frame_or_refused(data: bytes) -> None:
    left, right = socket.socketpair()
    with left, right:
        left.sendall(data)
        left.shutdown(socket.SHUT_WR)
        try:
            header, _ = read_frame(exact_reader(right))
        except (EnvelopeError, EOFError):
            return
    assert isinstance(header, dict)


class _Lines:
    """A stream that keeps what is written."""

    def __init__(self, said: list[str]) -> None:
        self._said = said

    def write(self, text: str) -> int:
        self._said.append(text)
        return len(text)

    def flush(self) -> None:
        pass
