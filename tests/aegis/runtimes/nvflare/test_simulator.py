"""A job over FLARE's own simulator: the same model as in one process, and whatever a site does, the others go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from aegis.errors import InvalidJob, RunAborted, RunFolderError, RunPaused
from aegis.runs.folder import RunFolder
from aegis.runs.runner import execute
from aegis.verification import verify_run
from tests.aegis.runtimes.nvflare.hosted import EXECUTORS, Hosted, kill

Found = Callable[..., Hosted]


def test_the_simulator_gives_the_model_of_one_process_to_the_last_bit(
    hosted: Found, capfd: pytest.CaptureFixture[str]
) -> None:
    federation = hosted()
    expected = federation.in_one_process()

    assert federation.run() == expected
    assert [report.record.round_number for report in federation.reports] == [1, 2]
    assert all(claims.jobs == ("study-1",) for claims in federation.reports[-1].lineages.values())
    assert verify_run(federation.folder.path).failed == ()
    assert capfd.readouterr() == ("", "")
    assert b"ServerRunner" in (federation.folder.path / "nvflare.log").read_bytes()
    assert federation.deployment.reserved_rounds() == {"clinic-1": [1, 2], "clinic-2": [1, 2]}


def test_a_site_that_cannot_prove_itself_is_left_out_and_the_job_goes_on(hosted: Found) -> None:
    federation = hosted(sites=3, min_clients=2)

    federation.run(executor=f"{EXECUTORS}.CannotProveItself")

    refused = [report.record.refused for report in federation.reports]
    assert refused[0] == {"clinic-1": "attestation_unavailable"}
    assert refused[1].keys() == {"clinic-1"}
    assert federation.reports[-1].record.admitted == ("clinic-2", "clinic-3")


@pytest.mark.slow
def test_a_return_code_over_which_flare_ends_jobs_ends_nobodys(hosted: Found) -> None:
    federation = hosted(sites=3, min_clients=2)

    federation.run(executor=f"{EXECUTORS}.AnswersWhatEndsJobs")

    assert federation.reports[0].record.refused == {"clinic-1": "internal"}
    assert [len(report.record.admitted) for report in federation.reports] == [2, 2]


@pytest.mark.slow
def test_a_run_that_pauses_says_why_and_the_same_command_goes_on(hosted: Found) -> None:
    federation = hosted()
    expected = federation.in_one_process()
    with pytest.raises(RunPaused, match="round 1 cannot be completed"):
        federation.run(executor=f"{EXECUTORS}.AllRefuse")

    assert federation.run() == expected


@pytest.mark.slow
def test_with_fewer_threads_than_sites_each_task_has_a_new_process_and_the_model_is_the_same(hosted: Found) -> None:
    federation = hosted(rounds=1)
    expected = federation.in_one_process()

    assert federation.run(threads=1) == expected
    assert federation.deployment.reserved_rounds() == {"clinic-1": [1], "clinic-2": [1]}


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["the command", "FLARE's server", "a client"])
def test_whatever_is_killed_the_same_command_goes_on_and_nothing_is_spent_twice(hosted: Found, victim: str) -> None:
    federation = hosted(rounds=8, round_deadline_s=20.0)
    expected = federation.in_one_process()
    with federation.running() as command:
        federation.await_round(2)
        match victim:
            case "the command":
                kill(command.pid)
            case "FLARE's server":
                kill(federation.process("aegis.runtimes.nvflare.simulator_process"))
            case "a client":
                kill(federation.process("simulator_worker", "--client clinic-1"))
        command.wait(timeout=120)
        assert command.returncode != 0
    federation.await_silence()

    assert federation.run() == expected
    assert set(map(tuple, federation.deployment.reserved_rounds().values())) == {tuple(range(1, 9))}


@pytest.mark.slow
def test_a_class_that_is_no_executor_ends_the_run_and_names_flares_log(hosted: Found) -> None:
    federation = hosted()

    with pytest.raises(RunAborted, match=r"ended the job.*; FLARE's own log: .*nvflare\.log$"):
        federation.run(executor="json.JSONDecoder")

    assert "JSONDecoder" in (federation.folder.path / "nvflare.log").read_text()


def test_simulated_sessions_need_the_development_profile(hosted: Found) -> None:
    federation = hosted()
    registry = federation.deployment.federation.registry
    registry.write_text(
        registry.read_text().replace('profile = "development"', 'profile = "production"')
        + '\n[attestation]\nkinds = ["snp"]\n'
    )

    with pytest.raises(InvalidJob, match="needs profile development"):
        federation.run()


def test_a_run_folder_that_a_job_cannot_name_is_refused_before_anything_starts(hosted: Found) -> None:
    federation = hosted()
    plan = federation.plan()
    odd = plan.folder.path.with_name("my run")

    with pytest.raises(RunFolderError, match="cannot name the run folder 'my run'"):
        execute(federation.job, replace(plan, folder=RunFolder(odd)))

    assert not (odd / "nvflare").exists()
