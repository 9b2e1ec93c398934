"""``coreason-enclave``: the site's own program, by the same rules."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from coreason_enclave.main import COMMANDS, main

ROOT = Path(__file__).resolve().parents[2]


def enclave(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize("path", [(), ("ledger",), ("ledger", "show"), ("ledger", "verify"), ("ledger", "export")])
def test_every_command_has_help_with_an_example(path: tuple[str, ...]) -> None:
    result = enclave(*path, "--help")

    assert result.exit_code == 0
    assert f"Example: coreason-enclave {path[0] if path else ''}" in result.stdout


def test_an_exported_ledger_of_a_run_is_shown(finished_run: Path) -> None:
    result = enclave("ledger", "show", finished_run / "ledger" / "clinic-1.json")

    assert result.exit_code == 0, result.stderr
    assert "clinic-1/visits (public, per person, 24 declared)" in result.stdout
    assert "job study-1: epsilon" in result.stdout


def test_a_falsified_ledger_is_refused_with_one_line(run_copy: Path) -> None:
    path = run_copy / "ledger" / "clinic-1.json"
    path.write_bytes(path.read_bytes().replace(b"study-1", b"study-2", 1))

    result = enclave("ledger", "verify", path)

    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.count("\n") == 1


def test_the_list_of_commands_says_of_each_what_the_command_says_of_itself() -> None:
    for name, later in COMMANDS.items():
        assert later.load().name == name


def test_the_program_loads_no_framework() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from coreason_enclave.main import main\n"
        "CliRunner().invoke(main, ['ledger', 'show', '--help'])\n"
        "print(sorted({'torch', 'opacus', 'flwr', 'pandas', 'aegis'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_the_version_is_said() -> None:
    assert enclave("--version").stdout.startswith("coreason-enclave 0.")
