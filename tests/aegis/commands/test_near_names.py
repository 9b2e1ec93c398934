"""A mistyped command, option or choice gets the one nearest name, in both programs and at every depth."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from aegis import cli
from coreason_enclave import main as site

PROGRAMS: dict[str, click.Group] = {"aegis": cli.main, "coreason-enclave": site.main}

MISTYPED = {
    "aegis pln": "No such command 'pln'. Did you mean 'plan'?",
    "aegis federation amdit": "No such command 'amdit'. Did you mean 'admit'?",
    "aegis runs lsit": "No such command, file or folder 'lsit'. Did you mean 'list'?",
    "aegis runs comapre 1 2": "No such command, file or folder 'comapre'. Did you mean 'compare'?",
    "aegis run exprt runs/1": "No such command, file or folder 'exprt'. Did you mean 'export'?",
    "aegis run repiar runs/1": "No such command, file or folder 'repiar'. Did you mean 'repair'?",
    "aegis evidence verfy": "No such command 'verfy'. Did you mean 'verify'?",
    "aegis demo --runtim flower": "No such option '--runtim'. Did you mean '--runtime'?",
    "aegis --log-levle debug": "No such option '--log-levle'. Did you mean '--log-level'?",
    "aegis runs list --jsno": "No such option '--jsno'. Did you mean '--json'?",
    "aegis run study --runtime flowr": "'nvflare'. Did you mean 'flower'?",
    "aegis --log-level debgu plan": "Did you mean 'debug'?",
    "coreason-enclave doctr": "No such command 'doctr'. Did you mean 'doctor'?",
    "coreason-enclave dataset chekc": "No such command 'chekc'. Did you mean 'check'?",
    "coreason-enclave ledger shwo ledger.sqlite": "No such command 'shwo'. Did you mean 'show'?",
    "coreason-enclave dataset check --confg site.toml": "No such option '--confg'. Did you mean '--config'?",
    "coreason-enclave policy raise-cap --epsilom 3": "No such option '--epsilom'. Did you mean '--epsilon'?",
}
FAR = {
    "aegis xyzzy": "No such command 'xyzzy'. (see aegis --help)",
    "aegis runs qqqq": "Directory 'qqqq' does not exist.",
    "aegis run ./exprt": "does not exist.",
    "aegis plan --zzzz": "No such option '--zzzz'. (see aegis plan --help)",
    "coreason-enclave dataset xyzzy": "No such command 'xyzzy'. (see coreason-enclave dataset --help)",
}


def answer(command: str) -> str:
    program, *arguments = command.split()
    result = CliRunner().invoke(PROGRAMS[program], arguments, prog_name=program)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.output
    return result.stderr


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AEGIS_LOG_LEVEL", raising=False)
    return tmp_path


@pytest.mark.parametrize("command", MISTYPED)
def test_a_mistyped_name_gets_the_nearest_known_name_and_no_other(command: str) -> None:
    line = answer(command)
    assert MISTYPED[command] in line
    assert line.count("Did you mean") == 1


@pytest.mark.parametrize("command", FAR)
def test_a_name_far_from_every_known_name_gets_no_guess(command: str) -> None:
    line = answer(command)
    assert FAR[command] in line
    assert "Did you mean" not in line


def test_a_folder_with_nearly_a_command_s_name_is_taken_as_a_folder(empty_folder: Path) -> None:
    (empty_folder / "lists").mkdir()
    result = CliRunner().invoke(cli.main, ["runs", "lists"])
    assert "No such command" not in result.output
