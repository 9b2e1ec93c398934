"""Logs stay small whatever happens, say how much they left out, and are rotated while they are written."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coreason_enclave.agent.logs import AgentLog
from coreason_enclave.federation.flower.supernode import SuperNode, last_node_id
from coreason_enclave.system.log_files import Repeats, SparingHandler, trim_log


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines(clock: Clock) -> Iterator[io.StringIO]:
    """What a logger named ``gateway`` writes through a sparing handler."""
    stream, logger = io.StringIO(), logging.getLogger("gateway")
    handler = SparingHandler(Repeats(most=3, window_s=60.0, clock=clock))
    handler.setStream(stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
    logger.handlers[:], logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
    yield stream
    handler.close()
    logger.handlers.clear()
    logger.propagate = True


def test_a_flood_of_one_kind_is_cut_and_counted_and_hides_no_other_line(clock: Clock, lines: io.StringIO) -> None:
    logger = logging.getLogger("gateway")
    for number in range(250_000 // 100):
        logger.error("cannot accept from %s", number)
    logger.error("the gateway keeps its present certificate")
    clock.now = 61.0
    logger.error("cannot accept from %s", "another")

    assert lines.getvalue().splitlines() == [
        "ERROR gateway cannot accept from 0",
        "ERROR gateway cannot accept from 1",
        "ERROR gateway cannot accept from 2",
        "ERROR gateway the gateway keeps its present certificate",
        "ERROR gateway left out 2497 more lines like: cannot accept from %s",
        "ERROR gateway cannot accept from another",
    ]


def test_tracebacks_of_one_kind_are_cut_too(lines: io.StringIO) -> None:
    logger = logging.getLogger("gateway")
    for number in range(100):
        try:
            raise OSError(number, "no descriptors")
        except OSError:
            logger.exception("socket.accept() out of system resource\nsocket: <%s>" % number)  # noqa: UP031

    assert lines.getvalue().count("Traceback") == 3


def test_the_end_of_a_process_writes_the_counts_that_are_open(tmp_path: Path) -> None:
    code = (
        "import logging\nfrom coreason_enclave.system.logging_setup import configure_logging\nconfigure_logging()\n"
        "for n in range(1000): logging.getLogger('x').warning('again %s', n)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert done.stderr.splitlines()[-1].endswith(" WARNING left out 990 more lines like: again %s")
    assert len(done.stderr.splitlines()) == 11


def test_many_kinds_take_no_more_memory_than_some(clock: Clock) -> None:
    repeats = Repeats(most=1, clock=clock)
    for number in range(2000):
        repeats.admits(f"kind {number}")
        repeats.over()

    assert len(repeats._kinds) <= 513


def test_the_agents_own_lines_are_counted_by_event_and_outcome(clock: Clock) -> None:
    stream = io.StringIO()
    log = AgentLog({}, stream=stream, moment=lambda: "T", repeats=Repeats(most=2, clock=clock))
    for _ in range(5):
        log.say("task", outcome="failed")
    log.say("task", outcome="unheard")
    clock.now = 61.0
    log.say("stopped")

    said = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in said] == ["task", "task", "task", "left_out", "stopped"]
    assert {"kind": "task failed", "lines": 3}.items() <= said[3].items()


def test_a_log_is_rotated_while_a_process_appends_to_it(tmp_path: Path) -> None:
    log = tmp_path / "superlink.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"x" * 5000)
        assert not trim_log(log, 5000)
        writer.write(b"the last line\n")
        assert trim_log(log, 5000)
        writer.write(b"the next line\n")

    assert log.read_bytes() == b"the next line\n"
    old = tmp_path / "superlink.log.1"
    assert old.read_bytes().endswith(b"the last line\n")
    assert old.stat().st_mode & 0o777 == 0o600


def test_a_log_that_cannot_be_rotated_stops_nothing(tmp_path: Path) -> None:
    assert not trim_log(tmp_path / "missing.log", 1)


def test_a_supernodes_log_is_rotated_and_still_names_its_node(tmp_path: Path) -> None:
    log = tmp_path / "supernode.log"
    node = SuperNode(tmp_path, tmp_path, "127.0.0.1:1", tmp_path / "ca", tmp_path / "secret", log)
    node.trim_log()
    log.write_bytes(b"INFO: SuperNode ID: 1234567890\n" + b"noise\n" * 800_000)
    os.truncate(log, 5 << 20)
    for _ in range(2):
        node.trim_log()
        with log.open("ab") as more:
            more.write(b"noise\n" * 800_000)

    node.trim_log()
    assert log.stat().st_size < 1000
    assert last_node_id(log) == 1234567890


def test_a_person_may_read_the_agents_lines_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEGIS_LOG_FORMAT", "text")
    stream = io.StringIO()
    AgentLog({"site": "clinic-1"}, stream=stream, moment=lambda: "T").say(
        "task", outcome="refused\nforged", seconds=1.5
    )

    assert stream.getvalue() == "T clinic-1 task outcome=refused\\nforged seconds=1.5\n"


def test_from_level_warning_on_the_agent_writes_refusals_and_failures_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AEGIS_LOG_LEVEL", "warning")
    stream = io.StringIO()
    log = AgentLog({}, stream=stream)
    for outcome in ("answered", "refused", "failed"):
        log.say("order", outcome=outcome)
    log.say("started")

    assert [json.loads(line)["outcome"] for line in stream.getvalue().splitlines()] == ["refused", "failed"]
