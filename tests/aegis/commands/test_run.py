"""``aegis run``: a job over real sites, gone on with after an end, and one clear line for whatever cannot be run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from aegis.coordination.admission import Admission
from aegis.errors import UpdateRefused
from aegis.rounds.round_attempt import RoundAttempt
from aegis.rounds.round_runner import RoundRunner
from aegis.stores.run_store import FileRunStore
from aegis.verification import verify_run
from coreason_enclave.errors import Reason
from coreason_enclave.ledger import SqliteLedger, verify_export

Aegis = Callable[..., Result]
ROOT = Path(__file__).resolve().parents[3]

GOOD = """\
job_id: study-1
min_clients: 2
rounds: 3
strategy: FED_AVG
privacy: {mechanism: DP_SGD, target_epsilon: 3.0, noise_multiplier: 1.0, max_grad_norm: 1.0, delta: 1e-5}
dataset_id: clinic/visits
model_arch: LogisticRegression
model_args: {in_features: 3}
"""

WRONG_JOBS = {
    "an epsilon of -1": (
        GOOD.replace("target_epsilon: 3.0", "target_epsilon: -1"),
        "target_epsilon must be in (0, 1000]",
    ),
    "an epsilon of NaN": (
        GOOD.replace("target_epsilon: 3.0", "target_epsilon: .nan"),
        "target_epsilon must be in (0, 1000]",
    ),
    "an infinite epsilon": (
        GOOD.replace("target_epsilon: 3.0", "target_epsilon: .inf"),
        "target_epsilon must be in (0, 1000]",
    ),
    "an epsilon in words": (
        GOOD.replace("target_epsilon: 3.0", "target_epsilon: three"),
        "must be a number, got 'three'",
    ),
    "an epsilon in quotes": (GOOD.replace("target_epsilon: 3.0", "target_epsilon: '3'"), "must be a number, got '3'"),
    "an epsilon of yes": (GOOD.replace("target_epsilon: 3.0", "target_epsilon: yes"), "must be a number, got True"),
    "an epsilon of 401 digits": (
        GOOD.replace("target_epsilon: 3.0", f"target_epsilon: 1{'0' * 400}"),
        "a number has 401",
    ),
    "no epsilon": (GOOD.replace("target_epsilon: 3.0, ", ""), "DP_SGD needs target_epsilon"),
    "two epsilons": (GOOD.replace("target_epsilon: 3.0", "target_epsilon: 3.0, target_epsilon: 300"), "occurs twice"),
    "no noise": (
        GOOD.replace("noise_multiplier: 1.0", "noise_multiplier: 0"),
        "noise_multiplier must be in (0, 1e+06]",
    ),
    "a delta of 1": (GOOD.replace("delta: 1e-5", "delta: 1"), "delta must be in (0, 0.1]"),
    "a mechanism of its own": (GOOD.replace("DP_SGD", "TRUST_ME"), "mechanism"),
    "a dataset outside the data root": (GOOD.replace("clinic/visits", "../../etc"), "dataset_id must be"),
    "a dataset by an absolute path": (GOOD.replace("clinic/visits", "/etc/passwd"), "dataset_id must be"),
    "a job id with a path": (GOOD.replace("study-1", "../study"), "job_id must be"),
    "no rounds": (GOOD.replace("rounds: 3", "rounds: 0"), "rounds must be in [1, 100000], got 0"),
    "half a round": (GOOD.replace("rounds: 3", "rounds: 1.5"), "rounds"),
    "an unknown field": (GOOD + "epsilon: 3\n", "epsilon is not a known field"),
    "an unknown privacy field": (
        GOOD.replace("delta: 1e-5", "delta: 1e-5, secure: true"),
        "privacy.secure is not a known field",
    ),
    "a missing field": (GOOD.replace("model_arch: LogisticRegression\n", ""), "model_arch is required"),
    "an aggregator that nobody knows": (GOOD + "aggregator: average\n", "aggregator"),
    "a mean that tolerates liars": (GOOD + "num_byzantine: 1\n", "mean tolerates no Byzantine site"),
    "no YAML": ("job_id: [", "is not YAML"),
    "no text": ("\x00\x01", "is not YAML"),
    "a tag that would run code": ("!!python/object/apply:os.system ['true']", "is not YAML"),
    "a list": ("- job_id\n", "must hold the fields of one job"),
    "nothing": ("", "must hold the fields of one job"),
    "brackets without an end": ("[" * 10_000, "is not YAML"),
    "a strategy that nobody knows": (GOOD.replace("FED_AVG", "FED_SUM"), "strategy"),
    "control variates over steps with momentum": (
        GOOD.replace("FED_AVG", "SCAFFOLD") + "momentum: 0.5\n",
        "SCAFFOLD needs momentum 0",
    ),
    "more sites than there are": (
        GOOD.replace("min_clients: 2", "min_clients: 3"),
        "min_clients = 3 sites, but the federation has 2",
    ),
    "a cap that no noise meets": (
        GOOD.replace("target_epsilon: 3.0, noise_multiplier: 1.0", "target_epsilon: 1.0e-9").replace("1e-5", "1e-12"),
        "privacy.target_epsilon: no noise multiplier",
    ),
}


@pytest.mark.parametrize(("text", "said"), WRONG_JOBS.values(), ids=WRONG_JOBS)
def test_a_wrong_job_file_gets_one_clear_line_and_exit_code_2(aegis: Aegis, study: Any, text: str, said: str) -> None:
    (study.root / "job.yaml").write_text(text)

    result = aegis(
        "run", study.root / "job.yaml", "--federation", study.federation, "--out", study.root / "run", "--json"
    )

    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert said in lines[0]
    assert result.stdout == ""


def test_the_good_job_that_the_wrong_ones_are_made_from_is_good(study: Any) -> None:
    from aegis.federation.job_files import load_job

    (study.root / "job.yaml").write_text(GOOD)

    assert load_job(study.root / "job.yaml").privacy.delta == 1e-5


def no_federation(study: Any) -> Path:
    (study.root / "empty").mkdir()
    return Path(study.root / "empty")


def a_broken_federation(study: Any) -> Path:
    (study.federation / "federation.toml").write_text("version = 1\n")
    return Path(study.federation)


def a_federation_that_is_no_toml(study: Any) -> Path:
    (study.federation / "federation.toml").write_text("version = \n")
    return Path(study.federation)


def a_key_that_others_can_read(study: Any) -> Path:
    (study.federation / "coordinator" / "signing.key").chmod(0o644)
    return Path(study.federation)


WRONG_FEDERATIONS: dict[str, tuple[Callable[[Any], Path], str]] = {
    "a folder that is not there": (lambda study: study.root / "missing", "does not exist"),
    "a folder without a federation": (no_federation, "is not a federation folder"),
    "a federation without participants": (a_broken_federation, "public_keys is required"),
    "a federation that is no TOML": (a_federation_that_is_no_toml, "is not TOML"),
    "a key that others can read": (a_key_that_others_can_read, "chmod 600"),
}


@pytest.mark.parametrize(("make", "said"), WRONG_FEDERATIONS.values(), ids=WRONG_FEDERATIONS)
def test_a_federation_that_cannot_be_used_gets_one_clear_line(
    aegis: Aegis, study: Any, make: Callable[[Any], Path], said: str
) -> None:
    result = aegis("run", study.write_job("j"), "--federation", make(study), "--out", study.root / "run", "--json")

    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr.splitlines()[-1]


def test_a_job_file_that_is_not_there_gets_one_clear_line(aegis: Aegis, study: Any) -> None:
    result = aegis("run", study.root / "missing.yaml", "--federation", study.federation)

    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "missing.yaml" in result.stderr


def test_a_run_tells_each_round_and_what_to_do_next(aegis: Aegis, study: Any) -> None:
    result = aegis("run", study.write_job("s"), "--federation", study.federation, "--out", study.root / "run")

    assert result.exit_code == 0, result.output
    rounds = [line for line in result.stdout.splitlines() if line.startswith("round ")]
    assert [line.split(":")[0] for line in rounds] == ["round 1/3", "round 2/3", "round 3/3"]
    assert all("2 admitted" in line and "of 8 at each site" in line for line in rounds)
    assert f"next: aegis verify {study.root / 'run'}" in result.stdout
    assert verify_run(study.root / "run").ok


def test_the_json_outcome_is_the_whole_of_standard_output(aegis: Aegis, study: Any) -> None:
    job = study.write_job("s", rounds=1)

    result = aegis("run", job, "--federation", study.federation, "--out", study.root / "run", "--json")

    outcome = json.loads(result.stdout)
    assert outcome == {"run": str(study.root / "run"), **json.loads((study.root / "run" / "outcome.json").read_text())}
    assert "round 1/1" in result.stderr


def test_a_finished_run_is_not_run_again(aegis: Aegis, study: Any) -> None:
    arguments = ("run", study.write_job("s", rounds=1), "--federation", study.federation, "--out", study.root / "run")
    aegis(*arguments)

    result = aegis(*arguments)

    assert result.exit_code == 2
    assert "holds a finished run" in result.stderr


def spent_steps(study: Any) -> dict[str, int]:
    spent = {}
    for site in ("clinic-1", "clinic-2"):
        ledger = SqliteLedger(study.federation / "sites" / site / "ledger.sqlite", must_exist=True)
        spent[site] = sum(claim.steps_counted for claim in verify_export(ledger.export()).jobs)
        ledger.close()
    return spent


def test_interrupted_between_two_rounds_the_same_command_goes_on_and_nothing_is_spent_twice(
    aegis: Aegis, study: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("run", study.write_job("s"), "--federation", study.federation, "--out", study.root / "run")
    settle = RoundRunner.settle

    def and_then_ctrl_c(self: Any, *args: Any) -> Any:
        settle(self, *args)
        raise KeyboardInterrupt

    with monkeypatch.context() as once:
        once.setattr(RoundRunner, "settle", and_then_ctrl_c)
        interrupted = aegis(*arguments)
    resumed = aegis(*arguments)

    assert interrupted.exit_code == 130
    assert [line for line in interrupted.stderr.splitlines() if line][-1].startswith("error: interrupted")
    assert resumed.exit_code == 0, resumed.output
    assert "round 1/3" not in resumed.stdout
    assert "round 2/3" in resumed.stdout
    assert spent_steps(study) == {"clinic-1": 12, "clinic-2": 12}
    assert verify_run(study.root / "run").ok


@pytest.mark.parametrize("save", range(1, 12))
def test_killed_before_any_state_was_kept_a_run_goes_on_and_its_records_still_verify(
    aegis: Aegis, study: Any, monkeypatch: pytest.MonkeyPatch, save: int
) -> None:
    """A crash leaves lines in the log twice, or a round without its line: none of it may look like a false claim."""
    arguments = ("run", study.write_job("s"), "--federation", study.federation, "--out", study.root / "run")
    keep, kept = FileRunStore.save, iter(range(save - 1))

    def die_at_once(self: FileRunStore, state: Any) -> str:
        if next(kept, None) is None:
            raise SystemExit(9)
        return keep(self, state)

    with monkeypatch.context() as once:
        once.setattr(FileRunStore, "save", die_at_once)
        assert aegis(*arguments).exit_code == 9
    assert aegis(*arguments).exit_code == 0

    report = verify_run(study.root / "run")
    assert report.ok, [finding for finding in report.findings if finding.verdict == "fails"]
    assert spent_steps(study) == {"clinic-1": 12, "clinic-2": 12}


@pytest.mark.parametrize("line", range(1, 18))
def test_killed_before_any_line_of_the_log_a_run_goes_on_and_its_records_still_verify(
    aegis: Aegis, study: Any, monkeypatch: pytest.MonkeyPatch, line: int
) -> None:
    from aegis.security.audit import HashLog

    arguments = ("run", study.write_job("s"), "--federation", study.federation, "--out", study.root / "run")
    append, written = HashLog.append, iter(range(line - 1))

    def die_at_once(self: HashLog, **event: Any) -> Any:
        if event["actor"] == "coordinator" and next(written, None) is None:
            raise SystemExit(9)
        return append(self, **event)

    with monkeypatch.context() as once:
        once.setattr(HashLog, "append", die_at_once)
        assert aegis(*arguments).exit_code == 9
    assert aegis(*arguments).exit_code == 0

    report = verify_run(study.root / "run")
    assert report.ok, [finding for finding in report.findings if finding.verdict == "fails"]


def test_a_second_job_beyond_the_budget_is_one_clear_line_and_trains_nothing(aegis: Aegis, study: Any) -> None:
    private = {"target_epsilon": 10.0, "noise_multiplier": 0.8}
    for number in range(1, 9):
        job = study.write_job(f"job-{number}", privacy=private, rounds=2)
        before = spent_steps(study)
        result = aegis("run", job, "--federation", study.federation, "--out", study.root / f"run-{number}", "--json")
        if result.exit_code:
            break

    assert result.exit_code == 3
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "clinic-1: budget_exceeded, clinic-2: budget_exceeded" in errors[0]
    assert spent_steps(study)["clinic-1"] - before["clinic-1"] < 8
    assert not (study.root / f"run-{number}" / "outcome.json").exists()


def test_what_a_site_spent_on_an_update_that_was_not_admitted_is_seen_in_its_ledger(
    aegis: Aegis, study: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    admit = Admission.admit

    def refuse_one(self: Admission, *args: Any, **options: Any) -> Any:
        if (self.question.site_id, self.question.round_number) == ("clinic-2", 3):
            raise UpdateRefused("clinic-2", Reason.NORM_EXCEEDED, "the L2 norm exceeds max_update_norm")
        return admit(self, *args, **options)

    monkeypatch.setattr(Admission, "admit", refuse_one)
    job = study.write_job("s", min_clients=1)
    result = aegis("run", job, "--federation", study.federation, "--out", study.root / "run")

    assert "round 3/3: 1 admitted, clinic-2 refused (norm_exceeded)" in result.stdout
    report = verify_run(study.root / "run")
    (said,) = [finding.detail for finding in report.findings if finding.detail.startswith("clinic-2: 3.538 of 8")]
    assert report.ok
    assert "its ledger counts 4.348 spent, which includes updates that were not admitted" in said


def test_the_run_folder_of_another_job_is_not_taken_over(
    aegis: Aegis, study: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as once:
        once.setattr(RoundAttempt, "run", stop)
        aegis("run", study.write_job("one"), "--federation", study.federation, "--out", study.root / "run")
    result = aegis("run", study.write_job("two"), "--federation", study.federation, "--out", study.root / "run")

    assert result.exit_code == 2
    assert "the job changed" in result.stderr


ENDED_IN_ROUND_3 = """
import os, signal, sys
from aegis.commands import run

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in a shell's background starts with Ctrl-C ignored
observe = run._Rounds.observe

def end(self, report):
    observe(self, report)
    if report.record.round_number == 3:
        os.kill(os.getpid(), int(sys.argv[1]))

run._Rounds.observe = end
from aegis.cli import main

main(sys.argv[2:])
"""
"""The command, which sends itself a signal in the middle: a signal from outside may come when all is done."""


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGKILL, -9, marks=pytest.mark.slow)]
)
def test_a_real_process_that_is_ended_in_the_middle_goes_on_where_it_was(
    aegis: Aegis, study: Any, sent: signal.Signals, code: int
) -> None:
    job = study.write_job("s", rounds=30, privacy={"noise_multiplier": 8.0})
    arguments = ["run", str(job), "--federation", str(study.federation), "--out", str(study.root / "run")]
    process = subprocess.run(
        [sys.executable, "-c", ENDED_IN_ROUND_3, str(int(sent)), *arguments],
        cwd=ROOT,
        env={**os.environ, "FLWR_TELEMETRY_ENABLED": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    said = process.stderr
    assert "round 3/30" in process.stdout
    assert "round 4/30" not in process.stdout
    assert process.returncode == code
    assert "Traceback" not in said
    assert ("error: interrupted" in said) == (sent is signal.SIGINT)

    resumed = aegis(*arguments)

    assert resumed.exit_code == 0, resumed.output
    assert "round 3/30" not in resumed.stdout
    assert "round 30/30" in resumed.stdout
    assert spent_steps(study) == {"clinic-1": 120, "clinic-2": 120}
    report = verify_run(study.root / "run")
    assert report.ok, [finding for finding in report.findings if finding.verdict == "fails"]
