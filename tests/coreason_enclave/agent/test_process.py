"""An agent's life, from outside: the real command, the real ``flower-supernode``, a gateway without a SuperLink."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from coreason_enclave.crypto.envelope import KeyRing, open_envelope
from coreason_enclave.errors import EnclaveError, Reason
from coreason_enclave.ipc.client import AgentClient
from coreason_enclave.ipc.streams import SOCKET_FILE
from coreason_enclave.ledger import NoiseSource
from coreason_enclave.main import main
from coreason_enclave.wire.documents import UPDATE_TYPE, UpdateStatement
from coreason_enclave.wire.handler import RequestKind
from tests.support.gatekeeping import Request, SmallGateway, wait_until
from tests.support.proving import ProvingCoordinator

ROOT = Path(__file__).resolve().parents[3]
START_S = 60.0


def no_superlink_behind_it(request: Request) -> tuple[int, bytes]:
    return (503, b"") if request.path.startswith("/v1/fleet/") else (204, b"")


def enclave(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "coreason_enclave.main", *map(str, arguments)]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(enclave(*arguments), cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def process_table() -> dict[int, list[str]]:
    """The command lines of everything that runs now."""
    table = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                table[int(entry.name)] = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
    return table


def supernodes_of(folder: Path) -> list[int]:
    return [
        pid
        for pid, words in process_table().items()
        if any(word.endswith("/flower-supernode") for word in words)
        and any(word.startswith(str(folder)) for word in words)
    ]


def listening(pids: list[int]) -> set[str]:
    """Local addresses (hex) on which these processes accept TCP connections."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                inodes.add(str(link.readlink()).removeprefix("socket:[").removesuffix("]"))
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes}


@contextmanager
def agent(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = enclave("agent", "--config", folder / "site.toml", *options)
    log = (folder / "agent.log").open("w")
    with log, subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, text=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(30)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "agent.log").read_text().splitlines() if line.startswith("{")]


def trying(gateway: SmallGateway) -> Callable[[], bool]:
    """Its SuperNode knocks at the gateway."""
    return lambda: any(request.path == "/v1/fleet/activate-node" for request in gateway.requests)


def test_an_agents_life(federation: Any, site: Any, gateway: SmallGateway) -> None:
    gateway.answer = no_superlink_behind_it
    federation = replace(federation, now=int(time.time()))
    folder, client = site.folder, AgentClient(site.folder, timeout_s=60)
    with agent(folder, "--unsafe-seed", "7") as process:
        wait_until((folder / SOCKET_FILE).exists, what="the agent's socket is there", deadline_s=START_S)

        # It answers orders of its coordinator that came through the socket, and nobody else's.
        coordinator = ProvingCoordinator(federation, folder / "coordinator")
        answer = client.handle(
            RequestKind.TRAIN, coordinator.order(federation.job(), site, partial(client.handle, RequestKind.ATTEST))
        )
        opened = open_envelope(answer.envelope, UPDATE_TYPE, KeyRing({"clinic-1": site.public_key}))
        assert UpdateStatement.from_payload(opened.payload).noise_source == NoiseSource.UNSAFE_SEEDED
        with pytest.raises(EnclaveError) as refused:
            client.handle(RequestKind.TRAIN, federation.order(federation.job(), payload_type="text/plain"))
        assert refused.value.reason is Reason.WRONG_PAYLOAD_TYPE

        # It shows how it is, and gives signs of life; its SuperNode knocks at the gateway, through the tunnel.
        wait_until(trying(gateway), what="its SuperNode knocks", deadline_s=START_S)
        said = run("status", "--config", folder)
        assert said.returncode == 0, said.stderr
        assert "SIMULATED attestation, UNSAFE SEEDED NOISE" in said.stdout
        assert "2 answered, 1 refused" in said.stdout
        assert "SuperNode runs" in said.stdout
        assert any(request.path == "/v1/agent/health" for request in gateway.requests)

        # A second one for the same site is turned away, and disturbs nothing.
        second = run("agent", "--config", folder)
        assert (second.returncode, second.stderr.count("\n")) == (2, 1)
        assert "already" in second.stderr
        assert client.status()["answered"] == 2

        # Nothing listens but on loopback, and no secret stands in a command line.
        [supernode] = supernodes_of(folder)
        assert listening([process.pid, supernode]) == {"0100007F"}
        secret = (folder / "flower" / "superexec.secret").read_bytes()
        assert secret.hex() not in " ".join(process_table()[supernode])
        assert (folder / "flower").stat().st_mode & 0o777 == 0o700

        # Asked to end, it ends, with everything that it started.
        process.terminate()
        assert process.wait(30) == 0
    assert supernodes_of(folder) == []
    assert not (folder / SOCKET_FILE).exists()
    events = [line["event"] for line in lines(folder)]
    assert set(events[:2]) == {"supernode", "started"}  # side by side
    assert events[-1] == "stopped"
    assert all(line["attestation"] == "simulated" for line in lines(folder))


@pytest.mark.slow
def test_an_agent_that_is_killed_takes_its_supernode_with_it_and_the_next_one_starts(
    site: Any, gateway: SmallGateway
) -> None:
    gateway.answer = no_superlink_behind_it
    with agent(site.folder) as process:
        wait_until(trying(gateway), what="its SuperNode knocks", deadline_s=START_S)
        wait_until((site.folder / SOCKET_FILE).exists, what="it listens", deadline_s=START_S)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    wait_until(lambda: not supernodes_of(site.folder), what="its SuperNode is gone")
    assert (site.folder / SOCKET_FILE).exists()  # left behind, and in nobody's way

    with agent(site.folder):
        wait_until(lambda: _answers(site.folder), what="the next one answers", deadline_s=START_S)


def _answers(folder: Path) -> bool:
    try:
        return bool(AgentClient(folder, timeout_s=10).status())
    except EnclaveError:
        return False


def test_a_site_that_has_not_joined_has_nothing_to_connect_to(federation: Any) -> None:
    site = federation.create()
    refused = run("agent", "--config", site.folder)

    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "coreason-enclave request" in refused.stderr


def test_a_known_seed_needs_profile_development(federation: Any) -> None:
    site = federation.create(
        profile="production",
        policy={"unsafe_count_unknown_participants": False, "unsafe_unattested_coordinator": True},
        lineage={"public": False},
    )
    refused = CliRunner().invoke(main, ["agent", "--config", str(site.folder), "--unsafe-seed", "7"])

    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert "profile development" in refused.stderr


def test_status_without_an_agent_says_so(federation: Any) -> None:
    refused = CliRunner().invoke(main, ["status", "--config", str(federation.create().folder)])

    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert "no agent is running" in refused.stderr


def test_an_agent_may_answer_on_its_socket_alone(federation: Any) -> None:
    federation = replace(federation, now=int(time.time()))
    site = federation.create()  # and joined nothing
    folder, client = site.folder, AgentClient(site.folder, timeout_s=60)
    with agent(folder, "--socket-only", "--unsafe-seed", "7") as process:
        wait_until((folder / SOCKET_FILE).exists, what="the agent's socket is there", deadline_s=START_S)
        coordinator = ProvingCoordinator(federation, folder / "coordinator")
        order = coordinator.order(federation.job(), site, partial(client.handle, RequestKind.ATTEST))
        answer, again = client.handle(RequestKind.TRAIN, order), client.handle(RequestKind.SUBMIT, order)
        assert answer is not None
        assert again is not None
        assert again.arrays != answer.arrays  # the same update, encrypted once more
        assert client.handle(RequestKind.VALIDATE, order) is None

        said = run("status", "--config", folder)
        assert said.returncode == 0, said.stderr
        assert "serves only its socket" in said.stdout
        assert "SuperNode runs" not in said.stdout
        assert supernodes_of(folder) == []
        assert listening([process.pid]) == set()

        process.terminate()
        assert process.wait(30) == 0
    assert not (folder / "flower").exists()
    assert [line["event"] for line in lines(folder)][:3] == ["started", "challenge", "order"]
    assert (folder / "validations.jsonl").stat().st_mode & 0o777 == 0o600


def test_an_agent_on_its_socket_alone_loads_nothing_of_flower(federation: Any) -> None:
    site = federation.create()
    code = (
        "import sys, threading; from pathlib import Path\n"
        "from coreason_enclave.agent.process import run_agent\n"
        "stop = threading.Event(); stop.set()\n"
        "run_agent(Path(sys.argv[1]), stop=stop, socket_only=True); print('flwr' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(site.folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout.splitlines()[-1] == "False"


def test_the_doctor_looks_for_no_gateway_where_none_is_wanted(federation: Any) -> None:
    folder = federation.create().folder
    checked = CliRunner().invoke(main, ["doctor", "--config", str(folder), "--socket-only"])
    otherwise = CliRunner().invoke(main, ["doctor", "--config", str(folder)])

    assert checked.exit_code == 0, checked.output
    assert "ok    gateway: none" in checked.output
    assert "node.key" not in checked.output
    assert otherwise.exit_code == 3
