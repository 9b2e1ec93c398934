"""A loop of one's own that runs 15 of 30 reserved steps: told at once, and one price on every page."""

from __future__ import annotations

import json
import re
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from aegis.runs import RunFolder
from aegis.studies import Study
from coreason_enclave.accounting import PoissonSampledGaussian, compose_epsilon
from coreason_enclave.commands.ledger import ledger
from coreason_enclave.ledger import JobClaim, SqliteLedger, verify_export
from coreason_enclave.privacy import LocalSgdTrainer, TrainingTask
from coreason_enclave.wire import TrainedUpdate
from tests.aegis.commands.conftest import invoke
from tests.aegis.conftest import ran_study

RESERVED, RAN = 30, 15


@pytest.fixture(scope="module")
def shorter(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, str]:
    """Run a study of one round whose loops stop half way; return it with the command's output."""
    train = LocalSgdTrainer.train

    def half(self: LocalSgdTrainer, task: TrainingTask) -> TrainedUpdate:
        short = task.job.model_copy(update={"local_steps": max(1, task.job.local_steps // 2)})
        return train(self, replace(task, job=short))

    study = ran_study(tmp_path_factory.mktemp("shorter"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalSgdTrainer, "train", half)
        changes = ("rounds=1", "average_last_rounds=1", f"local_steps={RESERVED}")
        options = [part for change in changes for part in ("--set", change)]
        answer = invoke("run", study.path, "--runtime", "in-process", "--no-baseline", *options)
    assert answer.exit_code == 0, answer.output
    return study, answer.output


def claim_of(study: Study, site: str) -> JobClaim:
    with closing(SqliteLedger(study.path / "sites" / site / "ledger.sqlite", must_exist=True)) as store:
        claims = verify_export(store.export()).jobs
    return next(claim for claim in claims if claim.job_id.endswith("-2"))


def test_every_page_shows_the_ledgers_own_spent_and_reserved(shorter: tuple[Study, str]) -> None:
    study, output = shorter
    claim, privacy = claim_of(study, "north"), RunFolder(study.latest).job().privacy
    assert (claim.steps_spent, claim.steps_counted) == (RAN, RESERVED)

    def epsilon(steps: int) -> str:
        event = PoissonSampledGaussian(privacy.noise_multiplier or 0.0, privacy.sample_rate, steps)
        return f"{compose_epsilon([event], privacy.delta or 0.0).epsilon:.3f}"

    spent, reserved = epsilon(RAN), epsilon(RESERVED)
    assert spent != reserved
    assert f"{claim.spent.epsilon:.3f}" == spent  # type: ignore[union-attr]
    assert f"epsilon at most {spent} spent of" in output
    assert f"epsilon {spent} spent, {reserved} reserved" in output
    assert f"epsilon {spent} spent, {reserved} reserved" in (study.latest / "summary.md").read_text()
    shown = CliRunner().invoke(ledger, ["show", str(study.path / "sites" / "north" / "ledger.sqlite")]).output
    assert f"epsilon {spent} spent, {reserved} reserved, of" in shown
    assert f"{spent} ({reserved} reserved)" in invoke("runs", "list", study.path).output
    assert f"epsilon {spent} spent, {reserved} reserved, of" in invoke("verify", study.latest).output


def test_every_page_says_why_spent_and_reserved_differ(shorter: tuple[Study, str]) -> None:
    study, output = shorter
    assert "Reserved exceeds spent at north (15 of 30 steps), south (15 of 30 steps)" in output
    shown = CliRunner().invoke(ledger, ["show", str(study.path / "sites" / "north" / "ledger.sqlite")]).output
    assert "15 of 30 reserved steps did not run; the ledger gave their budget back (spent)" in shown
    assert "Left: the share of the cap over all jobs" in shown
    left = re.search(r"epsilon ([\d.]+) \(([\d.]+)%\) left", shown)
    assert left is not None
    assert f"{left[2]}% of the cap" in output


def test_run_and_site_say_at_once_that_the_loop_took_other_steps(shorter: tuple[Study, str]) -> None:
    study, output = shorter
    words = "reserved 30 steps, ran 15: the training loop took other than the job's local_steps = 30"
    lines = output.splitlines()
    warned = [number for number, line in enumerate(lines) if line.startswith(f"warning: round 1, north: {words}")]
    assert warned == [next(number for number, line in enumerate(lines) if line.startswith("round 1/1")) + 1]
    log = [json.loads(line) for line in site_log(study.path / "sites" / "north").read_text().splitlines()]
    (entry,) = [entry for entry in log if entry["action"] == "loop"]
    assert entry["details"]["message"].startswith(words)


def site_log(site: Path) -> Path:
    return site / "audit.jsonl"
