"""A deployment from the kits that ``aegis nvflare provision`` makes, started by the kits' own scripts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from aegis.cli import main
from aegis.membership import free_ports
from aegis.runtimes.nvflare.guards import keep_storage_in
from aegis.runtimes.nvflare.options import FlareHosting
from aegis.runtimes.nvflare.submission_process import __name__ as submission_process
from aegis.verification import verify_run
from coreason_enclave.processes import spawn, terminate
from tests.runtimes.nvflare.hosted import Hosted, kill, wait_for

pytestmark = pytest.mark.slow
Found = Callable[..., Hosted]


def aegis(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@dataclass(frozen=True)
class Kits:
    server: Path
    admin: Path
    sites: dict[str, Path]


def provisioned(federation: Hosted) -> Kits:
    """Kits made by the command, and filled in as their owners would."""
    path = federation.deployment.path
    options = ("--server", "localhost", "--port", free_ports(1)[0], "--admin", "you@example.org")
    made = aegis("nvflare", "provision", path, *map(str, options), "--out", path / "kits", "--runs", path, "--json")
    assert made.exit_code == 0, made.output
    said = json.loads(made.stdout)
    keep_storage_in(Path(said["server"]) / "local", path / "storage")
    for site, kit in said["sites"].items():
        sample = json.loads((Path(kit) / "local" / "coreason.json.sample").read_bytes())
        sample["sites"] = {site: str(path / "sites" / site)}
        (Path(kit) / "local" / "coreason.json").write_text(json.dumps(sample))
    return Kits(Path(said["server"]), Path(said["admin"]), {site: Path(kit) for site, kit in said["sites"].items()})


@contextmanager
def started(federation: Hosted, kits: Kits) -> Iterator[None]:
    """Agents, server and clients, until the body ends."""
    path, environment = federation.deployment.path, flare_environment()
    with ExitStack() as running:
        for site in kits.sites:
            config = path / "sites" / site / "site.toml"
            agent = [sys.executable, "-m", "coreason_enclave.main", "agent", "--socket-only", "--config", str(config)]
            agent += ["--unsafe-seed", "11"]
            running.callback(terminate, spawn(agent, log=path / f"{site}.log"))
        for name, kit in {"server": kits.server, **kits.sites}.items():
            command = ["bash", str(kit / "startup" / "sub_start.sh"), "--once"]
            running.callback(terminate, spawn(command, log=path / f"flare-{name}.log", env=environment), grace_s=5)
        yield


def flare_environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "NO_PROXY": "*"}


def submit(kits: Kits, job: Path, note: Path, *clients: str) -> str:
    command = [sys.executable, "-m", submission_process, str(kits.admin), str(job), str(note), *clients]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=flare_environment())
    return done.stdout


def test_a_provisioned_deployment_runs_a_job_and_refuses_one_with_code(hosted: Found) -> None:
    federation = hosted()
    expected, path = federation.in_one_process(), federation.deployment.path
    kits = provisioned(federation)
    exported = aegis("nvflare", "export-job", path / "job.yaml", "--federation", path, "--out", path / "exported")
    assert exported.exit_code == 0, exported.output
    with started(federation, kits):
        became = submit(kits, with_code(path), path / "note.json", "clinic-1", "clinic-2")
        assert "the FLARE job ended: FINISHED:FAILED_TO_RUN" in became
        assert not federation.folder.path.exists()
        model = federation.run(FlareHosting.STARTUP_KIT, kit=kits.admin)

    assert model == expected
    assert verify_run(federation.folder.path).failed == ()


def with_code(path: Path) -> Path:
    job = Path(shutil.copytree(path / "exported", path / "with-code"))
    (job / "site" / "custom").mkdir()
    (job / "site" / "custom" / "more.py").write_text("print('more')\n")
    return job


def test_a_command_that_was_killed_finds_the_job_that_went_on_without_it(hosted: Found) -> None:
    federation = hosted(rounds=8)
    expected = federation.in_one_process()
    kits = provisioned(federation)
    with started(federation, kits):
        with federation.running(FlareHosting.STARTUP_KIT, kits.admin) as command:
            wait_for(federation.folder.path.joinpath("state", "state.json").exists, "the coordinator has begun")
            kill(command.pid)
        model = federation.run(FlareHosting.STARTUP_KIT, kit=kits.admin)

    assert model == expected


def test_a_server_that_is_not_there_is_one_clear_line(hosted: Found) -> None:
    federation = hosted()
    kits, path = provisioned(federation), federation.deployment.path

    run = ("run", path / "job.yaml", "--federation", path, "--out", path / "run", "--runtime", "nvflare")
    result = aegis(*run, "--startup-kit", kits.admin)

    assert result.exit_code == 2
    assert "does not answer" in result.stderr.splitlines()[-1]


def test_a_kit_that_is_not_an_administrators_is_refused(hosted: Found) -> None:
    federation = hosted()
    kits, path = provisioned(federation), federation.deployment.path
    run = ("run", path / "job.yaml", "--federation", path, "--out", path / "run", "--runtime", "nvflare")

    for no_kit in (kits.server, kits.sites["clinic-1"], path):
        result = aegis(*run, "--startup-kit", no_kit)
        assert result.exit_code == 2
        assert "is no startup kit of an administrator" in result.stderr
