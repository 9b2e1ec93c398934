"""A FLARE job that is lost on the way is submitted anew by the command that waits for it: the same model comes out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aegis.runtimes.nvflare.options import FlareHosting
from aegis.verification import verify_run
from coreason_enclave.system.processes import spawn, terminate
from tests.aegis.runtimes.nvflare.hosted import Hosted, kill
from tests.aegis.runtimes.nvflare.provisioned import Kits, flare_environment, provisioned, started

pytestmark = pytest.mark.slow
Found = Callable[..., Hosted]


def finish(federation: Hosted, command: subprocess.Popen[bytes], expected: bytes) -> None:
    """The command ends well, with the same model, and no round was spent twice."""
    command.wait(timeout=240)
    assert command.returncode == 0, (federation.deployment.path / "command.log").read_text()[-2000:]
    assert federation.deployment.model() == expected
    assert verify_run(federation.folder.path).failed == ()
    rounds = list(range(1, federation.job.rounds + 1))
    assert set(map(tuple, federation.deployment.reserved_rounds().values())) == {tuple(rounds)}


def server_again(federation: Hosted, kits: Kits) -> subprocess.Popen[bytes]:
    """As the loop in the kit's start script starts it."""
    command = ["bash", str(kits.server / "startup" / "sub_start.sh"), "--once"]
    return spawn(command, log=federation.deployment.path / "flare-server-again.log", env=flare_environment())


def test_a_server_that_was_killed_and_is_back_has_the_job_submitted_anew(hosted: Found) -> None:
    federation = hosted(rounds=6)
    expected, kits = federation.in_one_process(), provisioned(federation.deployment.path)
    with (
        started(federation.deployment.path, kits),
        federation.running(FlareHosting.STARTUP_KIT, kits.admin) as command,
    ):
        federation.await_round(2)
        kill(federation.process("server.server_train"))
        again = server_again(federation, kits)
        try:
            finish(federation, command, expected)
        finally:
            terminate(again)


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_job_process_of_the_server_that_falls_silent_is_replaced(hosted: Found, blow: signal.Signals) -> None:
    federation = hosted(rounds=6)
    expected = federation.in_one_process()
    with federation.running(FlareHosting.POC) as command:
        federation.await_round(2)
        os.kill(federation.process("server.runner_process"), blow)
        finish(federation, command, expected)


def test_a_site_that_is_stopped_for_a_while_costs_its_own_rounds(hosted: Found) -> None:
    """SIGSTOP of both of a site's FLARE processes; the others go on, and the site is back in once it runs again."""
    federation = hosted(sites=3, min_clients=2, rounds=8, round_deadline_s=10.0)
    with federation.running(FlareHosting.POC) as command:
        federation.await_round(2)
        stopped = [federation.process("client_train", "uid=clinic-1"), federation.process("worker_process", "clinic-1")]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        federation.await_round(4)
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        command.wait(timeout=180)
        assert command.returncode == 0
    history = federation.folder.state().history
    assert any("clinic-1" not in record.admitted for record in history)
    assert history[-1].admitted == ("clinic-1", "clinic-2", "clinic-3")


def test_the_lead_can_neither_disable_nor_end_anybodys_client(hosted: Found) -> None:
    federation = hosted()
    expected, kits = federation.in_one_process(), provisioned(federation.deployment.path)
    with started(federation.deployment.path, kits):
        for client in ("clinic-1", "clinic-2"):
            federation.process("client_train", f"uid={client}")
        said = commanded(kits.admin)
        model = federation.run(FlareHosting.STARTUP_KIT, kit=kits.admin)

    assert [line for line in said if "NOT REFUSED" in line] == []
    assert len(said) == len(COMMANDS)
    assert model == expected


COMMANDS = (
    "disable_client clinic-2", "remove_client clinic-2", "shutdown client clinic-2", "restart client clinic-2",
    "shutdown all", "shutdown server", "restart server", "sys_info server", "report_env clinic-2", "cat server log.txt",
)  # fmt: skip
LEAD = """
import os, sys, time
from nvflare.fuel.flare_api.flare_api import new_secure_session
from nvflare.fuel.f3.message import Message
from nvflare.private.admin_defs import Message as AdminMessage
kit, *commands = sys.argv[1:]
for _ in range(60):
    try:
        session = new_secure_session("you@example.org", kit, timeout=10.0)
        if len(session.get_system_info().client_info) == 2:
            break
    except Exception:
        pass
    time.sleep(1)
for command in commands:
    said = str(session.api.do_command(command))
    refused = "not authorized" in said.lower() or "not_authorized" in said.lower()
    print("said:", command, "refused" if refused else f"NOT REFUSED {said}", flush=True)
for topic in ("train.shutdown", "train.restart"):
    order = Message(payload=AdminMessage(topic, ""))
    session.api.cell.core_cell.fire_and_forget(channel="admin", topic=topic, targets="clinic-2", message=order)
time.sleep(2)
os._exit(0)
"""


def commanded(kit: Path) -> list[str]:
    """What FLARE answered the lead, who also sends orders to a site's cell past FLARE's commands."""
    command = [sys.executable, "-c", LEAD, str(kit), *COMMANDS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True, env=flare_environment())
    return [line for line in done.stdout.splitlines() if line.startswith("said:")]
