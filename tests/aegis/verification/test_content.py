"""A job whose lineages may grow: log, state, outcome and ``aegis verify`` name the sites and rounds that changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aegis.verification import Check, Verdict, verify_run
from coreason_enclave.crypto.envelope import unverified_payload
from coreason_enclave.errors import Reason
from coreason_enclave.session.secure_session import SecureSession
from coreason_enclave.wire.documents import RoundOrder
from coreason_enclave.wire.updates import SealedMessage
from tests.aegis.commands.conftest import Study, found_study, invoke


@pytest.fixture
def grows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its second round, clinic-1 appends a row."""
    run = SecureSession.run

    def growing(self: SecureSession, message: SealedMessage, **options: Any) -> SealedMessage:
        order = RoundOrder.from_payload(unverified_payload(message.envelope))
        if (order.site_id, order.round_number) == ("clinic-1", 2):
            rows = self.sentry.data_root / "clinic" / "visits" / "rows.csv"
            rows.write_text(rows.read_text() + "p999,1,2,3,1\n")
        return run(self, message, **options)

    monkeypatch.setattr(SecureSession, "run", growing)


@pytest.fixture
def study(tmp_path: Path, federation_at: Callable[[Path], Any]) -> Study:
    return found_study(tmp_path, federation_at)


def audited(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "audit.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("grows")
def test_every_record_of_a_run_names_the_round_before_which_a_site_grew(study: Study) -> None:
    job, run = study.write_job("grows", lineages_may_grow=True), study.root / "run"
    result = invoke("run", job, "--federation", study.federation, "--out", run)
    assert result.exit_code == 0, result.output
    admitted = [line["details"] for line in audited(run) if (line["action"], line["outcome"]) == ("admit", "accepted")]
    changed = [(each["site"], each["round"]) for each in admitted if each["content_changed"]]
    assert changed == [("clinic-1", 2)]
    assert json.loads((run / "outcome.json").read_text())["content_changed"] == {"clinic-1": [2]}

    report = verify_run(run)
    assert report.ok, report.failed
    said = [f.detail for f in report.findings if (f.subject, f.verdict) == (Check.CONTENT.label, Verdict.HOLDS)]
    assert said == [
        "clinic-1: CONTENT CHANGED between rounds, before round 2; the job allows it (lineages_may_grow)",
        "clinic-2: the same content in every round",
    ]


@pytest.mark.usefixtures("grows")
def test_a_job_whose_lineages_may_not_grow_goes_on_without_the_site_that_grew(study: Study) -> None:
    job, run = study.write_job("fixed", min_clients=1), study.root / "run"
    result = invoke("run", job, "--federation", study.federation, "--out", run)
    assert result.exit_code == 0, result.output
    history = json.loads((run / "state" / "state.json").read_text())["history"]
    assert [record["admitted"] for record in history] == [["clinic-1", "clinic-2"], ["clinic-2"], ["clinic-2"]]
    assert history[1]["refused"] == {"clinic-1": Reason.CONTENT_CHANGED}
    assert verify_run(run).ok
