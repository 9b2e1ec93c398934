"""A deployment from the kits that ``aegis nvflare provision`` makes, started by the kits' own scripts."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aegis.runtimes.nvflare.options import FlareHosting
from aegis.runtimes.nvflare.submission_process import __name__ as submission_process
from aegis.verification import verify_run
from tests.aegis.runtimes.nvflare.hosted import Hosted, kill, wait_for
from tests.aegis.runtimes.nvflare.provisioned import Kits, aegis, flare_environment, provisioned, started

pytestmark = pytest.mark.slow
Found = Callable[..., Hosted]


def submit(kits: Kits, job: Path, note: Path, *clients: str) -> str:
    command = [
        sys.executable,
        "-m",
        submission_process,
        str(kits.admin),
        str(job),
        str(note),
        str(len(clients)),
        *clients,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=flare_environment())
    return done.stdout


def test_a_provisioned_deployment_runs_a_job_and_refuses_one_with_code(hosted: Found) -> None:
    federation = hosted()
    expected, path = federation.in_one_process(), federation.deployment.path
    kits = provisioned(federation.deployment.path)
    exported = aegis("nvflare", "export-job", path / "job.yaml", "--federation", path, "--out", path / "exported")
    assert exported.exit_code == 0, exported.output
    with started(federation.deployment.path, kits):
        became = submit(kits, with_code(path), path / "note.json", "clinic-1", "clinic-2")
        assert "NVIDIA FLARE ended the job: FINISHED:FAILED_TO_RUN" in became
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
    kits = provisioned(federation.deployment.path)
    with started(federation.deployment.path, kits):
        with federation.running(FlareHosting.STARTUP_KIT, kits.admin) as command:
            wait_for(federation.folder.path.joinpath("state", "state.json").exists, "the coordinator has begun")
            kill(command.pid)
        model = federation.run(FlareHosting.STARTUP_KIT, kit=kits.admin)

    assert model == expected


def test_a_server_that_is_not_there_is_one_clear_line(hosted: Found) -> None:
    federation = hosted()
    kits, path = provisioned(federation.deployment.path), federation.deployment.path

    run = ("run", path / "job.yaml", "--federation", path, "--out", path / "run", "--runtime", "nvflare")
    result = aegis(*run, "--startup-kit", kits.admin)

    assert result.exit_code == 2
    assert "does not answer" in result.stderr.splitlines()[-1]


def test_a_kit_that_is_not_an_administrators_is_refused(hosted: Found) -> None:
    federation = hosted()
    kits, path = provisioned(federation.deployment.path), federation.deployment.path
    run = ("run", path / "job.yaml", "--federation", path, "--out", path / "run", "--runtime", "nvflare")

    for no_kit in (kits.server, kits.sites["clinic-1"], path):
        result = aegis(*run, "--startup-kit", no_kit)
        assert result.exit_code == 2
        assert "no administrator's kit" in result.stderr
