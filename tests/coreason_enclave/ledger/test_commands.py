"""The ledger's commands: readable output, one clear line for what is wrong, never a traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from coreason_enclave.ledger import LineageRegistration, NonPrivatePlan, SqliteLedger, verify_export
from coreason_enclave.main import main


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["ledger", *(str(argument) for argument in arguments)])


def test_show_states_cap_spend_and_jobs(used: SqliteLedger) -> None:
    result = run("show", used.path)
    assert result.exit_code == 0
    assert "clinic/visits (private, per person, 5000 declared)" in result.output
    assert "cap epsilon 8 at delta 1e-05, by the RDP filter at order 4" in result.output
    assert "job study-1: epsilon" in result.output
    assert "20 of 68 steps, 1 open" in result.output


def test_show_says_what_is_not_covered(
    used: SqliteLedger,
    make_registration: Callable[..., LineageRegistration],
    make_non_private: Callable[..., NonPrivatePlan],
) -> None:
    used.register(make_registration(lineage="open", public=True))
    used.reserve("open", make_non_private(), "04" * 32, require_all=True)
    result = run("show", used.path)
    assert "NON-PRIVATE training ran: no finite epsilon covers this lineage" in result.output


def test_json_is_one_document_of_public_facts(used: SqliteLedger) -> None:
    document = json.loads(run("show", used.path, "--json").output)
    assert document["head"]["seq"] == used.head().seq
    assert document["lineages"][0]["caps"]["epsilon"] == 8.0
    assert document["jobs"][0]["guarantee"]["accountant"] == "PLD"


def test_verify_and_export_agree_with_the_ledger(used: SqliteLedger, tmp_path: Path) -> None:
    out = tmp_path / "ledger.json"
    exported = run("export", used.path, "--out", out)
    head = used.head()
    assert f"head {head.seq}:{head.hash}" in exported.output
    assert verify_export(out.read_bytes()).head == head
    for target in (used.path, out):
        verified = run("verify", target, "--expect", f"{head.seq}:{head.hash}")
        assert verified.exit_code == 0
        assert f"verified: {head.seq + 1} entries" in verified.output
        assert json.loads(run("verify", target, "--json").output)["ok"] is True


def test_an_unfamiliar_head_is_reported(used: SqliteLedger) -> None:
    result = run("verify", used.path, "--expect", "1:" + "00" * 32)
    assert result.exit_code == 3
    assert "rolled back" in result.output


LOST = "9:" + "9f" * 32


def test_acknowledging_a_lost_head_says_what_it_means_and_every_look_at_the_ledger_shows_it(used: SqliteLedger) -> None:
    result = run("acknowledge", used.path, "--head", LOST, "--by", "A. Ito", "--why", "the disk failed")
    assert result.exit_code == 0
    assert "acknowledged by A. Ito: this ledger lacks entry 9" in result.output
    assert "no claim of this ledger covers it" in result.output
    assert f"head {used.head().seq}:{used.head().hash}" in result.output
    assert "INCOMPLETE: lacks lost entries up to entry 9; A. Ito continued" in run("show", used.path).output
    verified = run("verify", used.path, "--expect", LOST)
    assert verified.exit_code == 0
    assert "not checked: the privacy spent in lost entries up to entry 9" in verified.output


def test_a_head_that_the_ledger_knows_is_not_acknowledged(used: SqliteLedger) -> None:
    head = used.head()
    result = run("acknowledge", used.path, "--head", f"{head.seq}:{head.hash}", "--by", "A. Ito", "--why", "why not")
    assert (result.exit_code, used.head()) == (0, head)
    assert "nothing was written" in result.output


def test_an_export_cannot_be_acknowledged_on(used: SqliteLedger, tmp_path: Path) -> None:
    out = tmp_path / "ledger.json"
    run("export", used.path, "--out", out)
    before = out.read_bytes()
    result = run("acknowledge", out, "--head", LOST, "--by", "A. Ito", "--why", "the disk failed")
    assert result.exit_code == 2
    assert "is not the ledger itself" in result.output
    assert out.read_bytes() == before


def _spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"study-1", b"study-2"))


def test_a_tampered_export_is_one_line_and_exit_code_3(used: SqliteLedger, tmp_path: Path) -> None:
    out = tmp_path / "ledger.json"
    run("export", used.path, "--out", out)
    _spoil(out)
    result = run("verify", out)
    assert result.exit_code == 3
    assert result.output.startswith(f"error: {out}: the ledger's hash chain breaks at entry")
    assert "makes the file" not in result.output
    assert result.output.count("\n") == 1


WRONG_USES: dict[str, Callable[[Path], list[Any]]] = {
    "a missing file": lambda folder: ["show", folder / "absent.db"],
    "a folder": lambda folder: ["verify", folder],
    "an empty file": lambda folder: ["verify", folder / "empty"],
    "a text file": lambda folder: ["show", folder / "text"],
    "a head that is none": lambda folder: ["verify", folder / "text", "--expect", "latest"],
    "an export to nowhere": lambda folder: ["export", folder / "ledger.db", "--out", folder / "no" / "where.json"],
    "no path": lambda folder: ["show"],
    "a lost head that is none": lambda folder: [
        "acknowledge",
        folder / "ledger.db",
        "--head",
        "9",
        "--by",
        "A. Ito",
        "--why",
        "the disk failed",
    ],
    "an acknowledgement by nobody": lambda folder: [
        "acknowledge",
        folder / "ledger.db",
        "--head",
        LOST,
        "--by",
        "",
        "--why",
        "the disk failed",
    ],
    "an acknowledgement for no reason": lambda folder: [
        "acknowledge",
        folder / "ledger.db",
        "--head",
        LOST,
        "--by",
        "A. Ito",
    ],
    "an unknown command": lambda folder: ["forget"],
}


@pytest.mark.parametrize("arguments", WRONG_USES.values(), ids=WRONG_USES.keys())
def test_wrong_input_is_one_clear_line_and_never_a_traceback(
    tmp_path: Path, arguments: Callable[[Path], list[Any]]
) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("once upon a time")
    SqliteLedger(tmp_path / "ledger.db").close()
    result = run(*arguments(tmp_path))
    assert result.exit_code in (2, 3)
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["show", "verify", "export", "acknowledge"])
def test_help_has_an_example(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"Example: coreason-enclave ledger {command}" in result.output


def test_looking_at_a_missing_ledger_does_not_found_one(tmp_path: Path) -> None:
    run("show", tmp_path / "ledger.db")
    assert list(tmp_path.iterdir()) == []
