"""What waiting cannot change is refused at once, by name."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from contextlib import closing
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from aegis.coordination import can_never_suffice
from aegis.errors import BudgetRefused
from aegis.federation import FederationFolder
from aegis.runs import RunFolder
from aegis.runs.refusal_words import in_words
from coreason_enclave.accounting import PoissonSampledGaussian, compose_epsilon
from coreason_enclave.command_line import CommandLine
from coreason_enclave.ledger import SqliteLedger, verify_export

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


def test_a_job_beyond_its_own_cap_names_its_price_and_changes_that_fit(aegis: Aegis, study: Any) -> None:
    job = study.write_job("long", rounds=400, privacy={"target_epsilon": 4.0, "noise_multiplier": 2.0})
    result = aegis("run", job, "--federation", study.federation, "--out", study.root / "long")
    assert result.exit_code == 3, result.output
    (steps, cost), (rounds, local) = (
        re.search(pattern, result.stderr).groups()  # type: ignore[union-attr]
        for pattern in (r"the job's (\d+) steps cost epsilon ([\d.]+)", r"at most (\d+) rounds of (\d+) steps")
    )
    resolved = RunFolder(study.root / "long").job().privacy

    def epsilon(steps: int) -> float:
        event = PoissonSampledGaussian(2.0, resolved.sample_rate, steps)
        return compose_epsilon([event], resolved.delta or 0.0).epsilon

    assert float(cost) == pytest.approx(epsilon(int(steps)), abs=1e-3)
    assert epsilon(int(rounds) * int(local)) <= 4.0 < epsilon((int(rounds) + 1) * int(local))
    assert "a noise multiplier of at least" in result.stderr
    assert "aegis explain budget_exceeded" in result.stderr


def test_a_job_beyond_what_is_left_names_what_is_left_and_the_change_that_it_names_runs(
    aegis: Aegis, study: Any
) -> None:
    private = {"target_epsilon": 10.0, "noise_multiplier": 0.8}
    for number in range(1, 9):
        job = study.write_job(f"job-{number}", privacy=private, rounds=2)
        result = aegis("run", job, "--federation", study.federation, "--out", study.root / f"run-{number}")
        if result.exit_code:
            break
    ledger = study.federation / "sites" / "clinic-1" / "ledger.sqlite"
    with closing(SqliteLedger(ledger, must_exist=True)) as store:
        (claim,) = verify_export(store.export()).lineages
    left = claim.caps.epsilon - claim.spent_epsilon
    assert result.exit_code == 3, result.output
    assert f"{left:.3f} ({claim.remaining_pico / claim.budget_pico:.1%} of the budget) is left" in result.stderr

    noise = float(re.search(r"a noise multiplier of at least ([\d.]+)", result.stderr)[1])  # type: ignore[index]
    fits = study.write_job("fits", privacy={**private, "noise_multiplier": noise}, rounds=2)
    again = aegis("run", fits, "--federation", study.federation, "--out", study.root / "fits")
    assert again.exit_code == 0, again.output


def test_a_site_elsewhere_keeps_its_budget_to_itself_and_the_line_says_whom_to_ask(study: Any) -> None:
    paused = BudgetRefused("round 1 cannot be completed")
    paused.reasons = {"far-away": "budget_exceeded"}
    words = str(in_words(paused, study.job(), FederationFolder(study.federation)))
    assert "far-away: what is left is the site's to tell: ask it for the lines of coreason-enclave ledger show" in words
    assert "aegis explain budget_exceeded" in words


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
