"""``aegis run`` of a job with client-level privacy: what it needs, what it says, and what it leaves to be verified."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from aegis.cli import main
from aegis.federation.registry import ClientBudget, FederationFolder
from aegis.runs.folder import RunFolder
from aegis.runs.plan import RunPlan
from aegis.runs.runner import execute
from aegis.verification import Conclusion, Verdict, verify_run
from aegis.verification.findings import INCOMPLETE
from coreason_enclave.crypto.hash_log import HashLog
from coreason_enclave.crypto.signing import Signer
from coreason_enclave.ledger import verify_export
from coreason_enclave.wire.checkpoints import sign_log
from tests.aegis.client_privacy.conftest import CLIENT
from tests.aegis.commands.conftest import Study, found_study

VERIFIER = Path(__file__).resolve().parents[3] / "tools" / "verify_wire.py"
BUDGET = {"epsilon": 50.0, "delta": 1e-3, "job_epsilon": 40.0, "job_delta": 1e-3}


def aegis(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def allow(study: Study, **changes: Any) -> None:
    """Give the federation a budget for such jobs."""
    folder = FederationFolder(study.federation)
    budget = ClientBudget.model_validate({**BUDGET, **changes})
    folder.create(folder.config().model_copy(update={"client_privacy": budget}))


def job_file(study: Study, name: str = "study-1", **client: Any) -> Path:
    return study.write_job(name, client_privacy={**CLIENT, "sample_rate": 0.8, **client})


@pytest.fixture
def clinics(tmp_path: Path, federation_at: Callable[[Path], Any]) -> Study:
    return found_study(tmp_path, federation_at)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, federation_at: Callable[[Path], Any]) -> tuple[Path, str]:
    """A run folder that is never written to, and what was printed."""
    study = found_study(tmp_path_factory.mktemp("finished"), federation_at)
    allow(study)
    result = aegis("run", job_file(study), "--federation", study.federation, "--out", study.root / "run")
    assert result.exit_code == 0, result.output
    return study.root / "run", result.output


# --- before it runs -------------------------------------------------------------------------------------------


def test_a_federation_that_says_nothing_about_it_refuses_such_a_job_and_begins_nothing(clinics: Study) -> None:
    result = aegis("run", job_file(clinics), "--federation", clinics.federation, "--out", clinics.root / "run")
    assert result.exit_code == 2
    assert "lacks its caps: the table [client_privacy]" in result.output
    assert "Traceback" not in result.output
    assert not (clinics.root / "run").exists()


@pytest.mark.parametrize(("limit", "value"), [("job_epsilon", 20.0), ("job_delta", 1e-4)])
def test_a_job_that_asks_for_more_than_the_federation_allows_is_refused(
    clinics: Study, limit: str, value: float
) -> None:
    allow(clinics, **{limit: value})
    result = aegis("run", job_file(clinics), "--federation", clinics.federation, "--out", clinics.root / "run")
    assert result.exit_code == 2
    assert "federation.toml allows a job" in result.output
    assert not (clinics.root / "run").exists()


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("aggregator", "krum", "needs aggregator mean"),
        ("num_examples_cap", 100, "needs uniform weights"),
        ("cohort_size", 2, "needs Poisson sampling over sites"),
        ("strategy", "SCAFFOLD", "needs FED_AVG or FED_PROX"),
    ],
)
def test_what_the_guarantee_does_not_hold_with_is_refused_when_the_job_is_read(
    clinics: Study, field: str, value: object, why: str
) -> None:
    allow(clinics)
    path = job_file(clinics)
    lines = [line for line in path.read_text().splitlines() if not line.startswith((f"{field}:", "momentum:"))]
    path.write_text("\n".join([*lines, f"{field}: {value}", ""]))
    result = aegis("run", path, "--federation", clinics.federation, "--out", clinics.root / "run")
    assert result.exit_code == 2
    assert why in result.output


def test_a_budget_has_no_defaults_and_says_what_it_lacks(clinics: Study) -> None:
    registry = FederationFolder(clinics.federation).registry
    registry.write_text(registry.read_text() + "\n[client_privacy]\nepsilon = 8.0\ndelta = 1e-4\njob_epsilon = 9.0\n")
    result = aegis("run", job_file(clinics), "--federation", clinics.federation, "--out", clinics.root / "run")
    assert result.exit_code != 0
    assert "client_privacy.job_delta is required" in result.output


# --- what it says ---------------------------------------------------------------------------------------------


def test_the_outcome_states_it_apart_from_the_sites_own(finished: tuple[Path, str]) -> None:
    run, printed = finished
    outcome = json.loads((run / "outcome.json").read_text())
    central = outcome["client_privacy"]
    assert (central["unit"], central["sampling"], central["accountant"]) == ("client", "poisson over sites", "PLD")
    assert central["noise_sources"] == ["coordinator_keystream"]
    assert any("coordinator" in each for each in central["does_not_protect_against"])
    assert any("persons" in each for each in central["does_not_protect_against"])
    assert f"epsilon {central['epsilon']:.3f} of 30 at delta 0.001" in printed
    assert all(value != central["epsilon"] for value in outcome["epsilon"].values())


def test_the_ledger_is_exported_and_the_key_stays(finished: tuple[Path, str]) -> None:
    run, _ = finished
    findings = verify_export((run / "ledger" / "coordinator.json").read_bytes())
    assert [(claim.job_id, claim.steps_run) for claim in findings.jobs] == [("study-1", 3)]
    keys = list((run.parent / "federation" / "coordinator" / "draws").iterdir())
    assert [(len(key.read_bytes()), key.stat().st_mode & 0o777) for key in keys] == [(32, 0o600)]
    secret = keys[0].read_bytes()
    assert not any(secret.hex().encode() in path.read_bytes() for path in run.rglob("*") if path.is_file())


def test_an_injected_seed_gives_the_same_model_again_and_is_called_unsafe(
    clinics: Study, tmp_path: Path, federation_at: Callable[[Path], Any]
) -> None:
    other = found_study(tmp_path / "other", federation_at)
    digests = []
    for study in (clinics, other):
        allow(study)
        folder = RunFolder(study.root / "run")
        plan = RunPlan(FederationFolder(study.federation), folder, unsafe_seed=7)
        job = study.job(job_id="s", rounds=3, min_clients=2, client_privacy={**CLIENT, "sample_rate": 0.8})
        digests.append(execute(job, plan).digest)
        assert folder.read_json("outcome.json")["client_privacy"]["noise_sources"] == ["unsafe_seeded"]
        assert verify_run(folder.path).failed == ()
    assert digests[0] == digests[1]


# --- what can be verified -------------------------------------------------------------------------------------


def findings(run: Path) -> tuple[int, list[str]]:
    report = verify_run(run)
    told = [f"{each.verdict}: {each.detail}" for each in report.findings if each.subject == "client_privacy"]
    return report.exit_code, told


def test_it_verifies_and_says_what_stays_open(finished: tuple[Path, str]) -> None:
    exit_code, told = findings(finished[0])
    assert exit_code == INCOMPLETE
    assert told[0].startswith("holds: 3 rounds")
    assert "over 3 cohort samples" in told[1]
    assert told[2].startswith("not checked: sampling of sites, clipping and noise")
    opened = [each for each in verify_run(finished[0]).findings if each.verdict is Verdict.NOT_CHECKED]
    assert any("client-level privacy does not hold for its readers" in each.detail for each in opened)


def test_what_hides_a_sites_update_keeps_the_run_from_being_verified_to_the_end(finished: tuple[Path, str]) -> None:
    """Said with what is missing; and no update is left in the folder for whoever reads it."""
    report = verify_run(finished[0])
    assert report.conclusion is Conclusion.CANNOT_BE_VERIFIED
    assert [missing[:18] for missing in report.missing] == ["the single updates"]
    assert not list((finished[0] / "state" / "updates").glob("*.safetensors"))


def test_the_independent_verifier_reads_the_run_and_the_coordinators_ledger(finished: tuple[Path, str]) -> None:
    for arguments in (["run", finished[0]], ["ledger", finished[0] / "ledger" / "coordinator.json"]):
        command = [sys.executable, VERIFIER, *map(str, arguments)]
        checked = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (checked.returncode, checked.stdout.strip()) == (0, "verified"), checked.stderr


def test_a_run_in_which_nobody_was_ever_drawn_verifies(clinics: Study) -> None:
    allow(clinics)
    path = job_file(clinics, sample_rate=1e-9)
    assert aegis("run", path, "--federation", clinics.federation, "--out", clinics.root / "run").exit_code == 0
    report = verify_run(clinics.root / "run")
    assert report.failed == (), report
    assert any("no update was admitted" in each.detail for each in report.findings)


def say(**changes: Any) -> Callable[[Path], None]:
    def falsify(run: Path) -> None:
        outcome = json.loads((run / "outcome.json").read_text())
        outcome["client_privacy"].update(changes)
        (run / "outcome.json").write_text(json.dumps(outcome))

    return falsify


def say_nothing(run: Path) -> None:
    outcome = json.loads((run / "outcome.json").read_text())
    del outcome["client_privacy"]
    (run / "outcome.json").write_text(json.dumps(outcome))


def cut_the_ledger(run: Path) -> None:
    path = run / "ledger" / "coordinator.json"
    document = json.loads(path.read_text())
    document["entries"] = document["entries"][:-1]
    last = document["entries"][-1]
    document["head"] = {"seq": last["seq"], "hash": last["hash"]}
    path.write_text(json.dumps(document, sort_keys=True, separators=(",", ":")))


def forget_a_payment(run: Path) -> None:
    """With the coordinator's key: a log that does not name the last entry that was cut off."""
    cut_the_ledger(run)
    lines = [json.loads(line) for line in (run / "audit.jsonl").read_text().splitlines()]
    (run / "audit.jsonl").unlink()
    log = HashLog(run / "audit.jsonl")
    for line in lines:
        if line["action"] != "client_privacy":
            log.append(**{name: line[name] for name in ("actor", "action", "outcome", "reason", "details")})
    (run / "audit.checkpoint.json").write_bytes(sign_log(log, Signer.from_seed(bytes([7]) * 32), "aegis/run"))
    log.close()


@pytest.mark.parametrize(
    ("falsify", "why"),
    [
        (say(epsilon=1.0), "3 cohort samples compose to"),
        (say(noise_multiplier=2.0), "different values of noise_multiplier"),
        (say(clip_norm=0.1), "different values of clip_norm"),
        (say(unit="person"), "per person"),
        (say_nothing, "states no client-level epsilon"),
        (cut_the_ledger, "lacks an entry that the log names"),
        (forget_a_payment, "has no cohort sample for the model"),
        (lambda run: (run / "ledger" / "coordinator.json").unlink(), "cannot be read"),
    ],
    ids=["epsilon", "noise", "clip", "unit", "nothing", "rolled back", "unpaid", "no ledger"],
)
def test_what_is_falsified_fails_by_its_own_exit_code(
    finished: tuple[Path, str], tmp_path: Path, falsify: Callable[[Path], object], why: str
) -> None:
    run = Path(shutil.copytree(finished[0], tmp_path / "run"))
    falsify(run)
    exit_code, told = findings(run)
    assert exit_code == 21
    assert why in told[-1]


def test_a_job_without_it_cannot_claim_it(clinics: Study) -> None:
    path = clinics.write_job("plain")
    assert aegis("run", path, "--federation", clinics.federation, "--out", clinics.root / "run").exit_code == 0
    run = clinics.root / "run"
    assert findings(run) == (0, ["holds: the job has no client_privacy, and no client-level epsilon is stated"])
    outcome = json.loads((run / "outcome.json").read_text())
    assert "client_privacy" not in outcome
    outcome["client_privacy"] = {**CLIENT, "unit": "client", "epsilon": 1.0}
    (run / "outcome.json").write_text(json.dumps(outcome))
    assert findings(run)[0] == 21
