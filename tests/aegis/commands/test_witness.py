"""``checkpoints`` and ``verify --witness``: what sites were shown of a log is compared with the log of a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from aegis.verification import Check, Reference, Verdict, verify_run
from coreason_enclave.crypto.encoding import sha256_hex
from coreason_enclave.crypto.signing import Signer
from coreason_enclave.main import main as enclave_main
from coreason_enclave.wire.checkpoints import WitnessStatement, open_checkpoint, open_witness, seal_witness
from tests.aegis.commands.conftest import SITES
from tests.aegis.commands.test_verify import COORDINATOR, origin_of, rewrite_audit

Aegis = Callable[..., Result]
CLINIC_1 = Signer.from_seed(bytes.fromhex(sha256_hex(b"clinic-1")))


def enclave(*arguments: object) -> Result:
    return CliRunner().invoke(enclave_main, [str(each) for each in arguments])


@pytest.fixture(scope="session")
def statements(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What each site exports after the run."""
    folder = tmp_path_factory.mktemp("witnesses")
    for site in SITES:
        result = enclave(
            "checkpoints", "export", finished_run.parent / "federation/sites" / site, "--out", folder / f"{site}.json"
        )
        assert result.exit_code == 0, result.output
    return {site: folder / f"{site}.json" for site in SITES}


def changed(path: Path, change: Callable[[WitnessStatement], WitnessStatement], signer: Signer = CLINIC_1) -> bytes:
    return seal_witness(change(open_witness(path.read_bytes())), signer)


def witnessed(report: Any) -> list[tuple[Verdict, str]]:
    return [(each.verdict, each.detail) for each in report.findings if each.subject == Check.WITNESS.label]


def test_every_site_of_a_run_holds_a_checkpoint_of_its_log(
    aegis: Aegis, finished_run: Path, statements: dict[str, Path]
) -> None:
    options = [each for path in statements.values() for each in ("--witness", path)]
    result = aegis("verify", finished_run, *options)
    assert result.exit_code == 0, result.output
    lines = (finished_run / "audit.jsonl").read_bytes().count(b"\n")
    for site in SITES:
        (log,) = open_witness(statements[site].read_bytes()).logs
        assert open_checkpoint(log.last, COORDINATOR.public_hex).size == lines
        assert result.output.count(f"{site} received the first {lines} of {lines} lines, the same as here") == 2
    assert "--witness" not in result.output  # nothing is left to be asked for


def test_without_a_statement_the_signed_updates_are_witnesses_and_the_statement_is_asked_for(
    finished_run: Path,
) -> None:
    report = verify_run(finished_run)
    assert report.ok
    lines = (finished_run / "audit.jsonl").read_bytes().count(b"\n")
    shown = [f"{site} received the first {lines} of {lines} lines, the same as here" for site in SITES]
    told = ["6 signed updates name a checkpoint of this log", *shown]  # the latter when the run ended
    assert witnessed(report) == [(Verdict.HOLDS, each) for each in told]
    assert any(each.subject == "witnesses" and each.verdict is Verdict.NOT_CHECKED for each in report.findings)


REWRITTEN: dict[str, Callable[[list[dict[str, Any]]], object]] = {
    "a remark in the first line": lambda lines: lines[0]["details"].update(remark="rewritten"),
    "another time in the middle": lambda lines: lines[len(lines) // 2].update(outcome="accepted "),
    "a line left out": lambda lines: lines.pop(2),
}


@pytest.mark.parametrize("change", REWRITTEN.values(), ids=REWRITTEN)
def test_a_log_that_was_rewritten_and_signed_again_is_not_verified_and_the_site_is_named(
    aegis: Aegis,
    run_copy: Path,
    statements: dict[str, Path],
    change: Callable[[list[dict[str, Any]]], object],
) -> None:
    rewrite_audit(run_copy, change)
    shutil.rmtree(run_copy / "state" / "updates")  # what the owner would delete, too
    shutil.rmtree(run_copy / "witness")
    result = aegis("verify", run_copy, "--witness", statements["clinic-2"])
    assert result.exit_code != 0
    report = verify_run(run_copy, Reference(witnesses=(open_witness(statements["clinic-2"].read_bytes()),)))
    assert Check.WITNESS in report.failed
    assert "clinic-2 contradicts the log" in result.output


def test_a_rewritten_log_contradicts_the_updates_that_the_sites_signed(run_copy: Path) -> None:
    rewrite_audit(run_copy, REWRITTEN["a remark in the first line"])
    report = verify_run(run_copy)
    assert set(report.failed) == {Check.MANIFEST, Check.WITNESS}  # the manifest was not signed again
    assert "lines of another log" in witnessed(report)[0][1]


def test_a_log_that_lost_its_end_is_contradicted(run_copy: Path, statements: dict[str, Path]) -> None:
    rewrite_audit(run_copy, lambda lines: [lines.pop() for _ in range(len(lines) - 3)])
    report = verify_run(run_copy, Reference(witnesses=(open_witness(statements["clinic-1"].read_bytes()),)))
    assert not report.ok


LIES: dict[str, tuple[Callable[[WitnessStatement], WitnessStatement], Signer, str]] = {
    "another site's key": (
        lambda x: x.model_copy(update={"public_key": COORDINATOR.public_hex}),
        COORDINATOR,
        "not signed with its key in config.json",
    ),
    "somebody who took no part": (
        lambda x: x.model_copy(update={"site_id": "clinic-9"}),
        CLINIC_1,
        "no participant",
    ),
    "a site that was never shown the log": (lambda x: x.model_copy(update={"logs": ()}), CLINIC_1, "never received"),
}


@pytest.mark.parametrize(("change", "signer", "said"), LIES.values(), ids=LIES)
def test_a_statement_that_does_not_fit_the_run_is_no_confirmation(
    aegis: Aegis,
    finished_run: Path,
    statements: dict[str, Path],
    tmp_path: Path,
    change: Callable[[WitnessStatement], WitnessStatement],
    signer: Signer,
    said: str,
) -> None:
    (tmp_path / "x.json").write_bytes(changed(statements["clinic-1"], change, signer))
    result = aegis("verify", finished_run, "--witness", tmp_path / "x.json")
    assert result.exit_code == int(Check.WITNESS), result.output
    assert said in result.output


WRONG_FILES: dict[str, Callable[[Path, Path], bytes]] = {
    "a checkpoint": lambda run, _: (run / "audit.checkpoint.json").read_bytes(),
    "a log": lambda run, _: (run / "audit.jsonl").read_bytes(),
    "an empty file": lambda _, __: b"",
    "a statement that was altered": lambda _, path: path.read_bytes().replace(b"A", b"B", 1),
    "a model": lambda run, _: (run / "model.safetensors").read_bytes(),
    "two megabytes of nothing": lambda _, __: bytes(1 << 21),
}


@pytest.mark.parametrize("data", WRONG_FILES.values(), ids=WRONG_FILES)
def test_a_file_that_is_no_statement_is_told_as_that(
    aegis: Aegis,
    finished_run: Path,
    statements: dict[str, Path],
    tmp_path: Path,
    data: Callable[[Path, Path], bytes],
) -> None:
    (tmp_path / "x.json").write_bytes(data(finished_run, statements["clinic-1"]))
    result = aegis("verify", finished_run, "--witness", tmp_path / "x.json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "is not a site's witness statement" in result.stderr


def test_a_checkpoint_in_a_statement_that_its_coordinator_did_not_sign_is_no_evidence(
    aegis: Aegis, finished_run: Path, statements: dict[str, Path], tmp_path: Path
) -> None:
    """A site cannot accuse a run by a checkpoint of its own making."""
    from coreason_enclave.crypto.envelope import seal
    from coreason_enclave.wire.checkpoints import CHECKPOINT_TYPE

    def accuse(statement: WitnessStatement) -> WitnessStatement:
        (log,) = statement.logs
        own = open_checkpoint(log.last, COORDINATOR.public_hex).model_copy(update={"root": "00" * 32})
        forged = seal(CHECKPOINT_TYPE, own.canonical(), CLINIC_1).decode()
        return statement.model_copy(update={"logs": (log.model_copy(update={"last": forged}),)})

    (tmp_path / "x.json").write_bytes(changed(statements["clinic-1"], accuse))
    assert aegis("verify", finished_run, "--witness", tmp_path / "x.json").exit_code == 2


def test_a_site_shows_and_exports_what_it_holds_and_never_over_a_file(
    finished_run: Path, statements: dict[str, Path], tmp_path: Path
) -> None:
    site = finished_run.parent / "federation/sites/clinic-1"
    (log,) = json.loads(enclave("checkpoints", "show", site, "--json").stdout)["logs"]
    assert (log["job"], f"aegis/run/{log['job_digest']}") == ("study-1", origin_of(finished_run))
    assert log["root"] in enclave("checkpoints", "show", site).stdout
    before = statements["clinic-1"].read_bytes()
    again = enclave("checkpoints", "export", site, "--out", statements["clinic-1"])
    assert (again.exit_code, statements["clinic-1"].read_bytes()) == (2, before)
    assert "choose another name" in again.stderr
    unknown = enclave("checkpoints", "export", site, "--out", tmp_path / "x.json", "--job", "study-2")
    assert (unknown.exit_code, list(tmp_path.iterdir())) == (2, [])
    by_digest = enclave("checkpoints", "export", site, "--out", tmp_path / "x.json", "--job", log["job_digest"])
    assert by_digest.exit_code == 0
    assert open_witness((tmp_path / "x.json").read_bytes()).logs == open_witness(before).logs


@pytest.mark.parametrize("checkpoint", ["3", "3:abc", f"3:{'0' * 64}"])
def test_only_a_checkpoint_that_was_refused_can_be_acknowledged(finished_run: Path, checkpoint: str) -> None:
    site = finished_run.parent / "federation/sites/clinic-1"
    digest = origin_of(finished_run).removeprefix("aegis/run/")
    told = ("--checkpoint", checkpoint, "--by", "A. Ito", "--why", "because")
    result = enclave("checkpoints", "acknowledge", site, "--job", digest, *told)
    assert result.exit_code == 2, result.output
    assert enclave("checkpoints", "acknowledge", site, "--job", "00", *told).exit_code == 2


def test_the_small_verifier_of_logs_agrees(finished_run: Path, run_copy: Path, statements: dict[str, Path]) -> None:
    from tests.coreason_enclave.wire.test_log_verifier import PROGRAM, load

    logs = load(PROGRAM)
    key = CLINIC_1.public_hex
    logs.refusing(logs.run, finished_run, statements["clinic-1"], key)
    rewrite_audit(run_copy, REWRITTEN["a remark in the first line"])
    with pytest.raises(logs.Refused, match="another log"):
        logs.refusing(logs.run, run_copy)
    shutil.rmtree(run_copy / "state" / "updates")
    shutil.rmtree(run_copy / "witness")
    logs.refusing(logs.run, run_copy)  # nothing left to contradict it, but a site's statement
    with pytest.raises(logs.Refused, match="written anew"):
        logs.refusing(logs.run, run_copy, statements["clinic-1"], key)
