"""What waiting cannot change is refused at once, by name."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from aegis.coordination import can_never_suffice
from coreason_enclave.command_line import CommandLine

Aegis = Callable[..., Result]


def test_a_changed_job_under_a_used_job_id_is_refused_by_the_field_that_differs(aegis: Aegis, study: Any) -> None:
    first = study.write_job("again", rounds=1)
    assert aegis("run", first, "--federation", study.federation, "--out", study.root / "one").exit_code == 0
    study.write_job("again", rounds=1, learning_rate=0.07)
    result = aegis("run", first, "--federation", study.federation, "--out", study.root / "two")
    assert result.exit_code == 2, result.output
    assert "learning_rate was" in result.stderr
    assert "another job_id" in result.stderr
    assert not (study.root / "two").exists()


def test_a_robust_aggregator_that_withstands_nobody_is_refused(aegis: Aegis, study: Any) -> None:
    job = study.write_job("robust", aggregator="trimmed_mean")
    result = aegis("run", job, "--federation", study.federation, "--out", study.root / "robust")
    assert result.exit_code == 2, result.output
    assert "withstands no hostile site" in result.stderr


@pytest.mark.parametrize(
    ("reasons", "final"),
    [({"a": "policy"}, True), ({"a": "no_reply"}, False), ({"a": "no_reply", "b": "round_conflict"}, True)],
)
def test_a_run_is_final_once_lasting_refusals_leave_too_few_sites(
    study: Any, reasons: dict[str, str], final: bool
) -> None:
    assert can_never_suffice(study.job(min_clients=3), ["a", "b", "c"], reasons) is final


def test_a_run_that_the_policy_refuses_ends_with_3_and_the_policy_line(aegis: Aegis, study: Any) -> None:
    for path in study.federation.glob("sites/*/site.toml"):
        text = path.read_text()
        assert "LogisticRegression" in text
        path.write_text(text.replace("LogisticRegression", "AnotherModel"))
    job = study.write_job("unwanted")
    result = aegis("run", job, "--federation", study.federation, "--out", study.root / "unwanted")
    assert result.exit_code == 3, result.output
    assert "model_archs does not list the job's LogisticRegression" in result.stderr
    assert "aegis explain policy" in result.stderr


def test_a_damaged_state_is_not_rebuilt_and_the_line_says_what_is_missing(aegis: Aegis, study: Any) -> None:
    run = study.root / "killed"
    (run / "state").mkdir(parents=True)
    (run / "config.json").write_text("{}")
    (run / "state" / "state.json").write_text("{")
    result = aegis("run", "repair", run)
    assert result.exit_code == 2, result.output
    assert "lacks the sites' signed enrolments" in result.stderr
    assert (run / "state" / "state.json").read_text() == "{"


def test_sigterm_ends_with_143_and_one_line() -> None:
    @click.command()
    def wait() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()

    group = CommandLine("program")
    group.add_command(wait, "wait")
    result = CliRunner().invoke(group, ["wait"])
    assert result.exit_code == 143
    assert result.stderr.count("\n") == 1
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
