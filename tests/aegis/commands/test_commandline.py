"""One line and an exit code for whatever goes wrong, and nothing imported before it is used."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from aegis import cli
from aegis.errors import AegisError, InvalidJob, RunFolderError, RunPaused, VerificationFailed
from coreason_enclave.command_line import TRACEBACK_VARIABLE, CommandLine, LazyCommand
from coreason_enclave.errors import (
    ConfigurationError,
    EnclaveError,
    EnvelopeError,
    JobRejected,
    LedgerCorrupted,
    PrivacyBudgetExceededError,
)
from coreason_enclave.schemas import FederationJob

ROOT = Path(__file__).resolve().parents[3]


def run_raising(raised: BaseException, **environment: str) -> Result:
    group = CommandLine("program", refusals=cli.REFUSALS)

    @group.command()
    def act() -> None:
        raise raised

    return CliRunner().invoke(group, ["act"], env=environment)


def a_validation_error() -> Exception:
    try:
        FederationJob.model_validate({"job_id": "../x", "rounds": 0})
    except ValueError as error:
        return error
    raise AssertionError


FAILURES: dict[str, tuple[int, BaseException, str]] = {
    "a job that cannot be run": (2, InvalidJob("rounds must be in [1, 100000], got 0"), "rounds must be in"),
    "a folder that cannot be used": (2, RunFolderError("runs/a holds a finished run"), "holds a finished run"),
    "a key that cannot be used": (2, ConfigurationError("chmod 600 it"), "chmod 600 it"),
    "a document that is no envelope": (2, EnvelopeError("not JSON"), "not JSON"),
    "a document with two wrong fields": (2, a_validation_error(), "rounds must be in [1, 100000], got 0"),
    "a file that is not there": (2, FileNotFoundError(2, "No such file", "job.yaml"), "job.yaml: No such file"),
    "a full disk": (2, OSError(28, "No space left on device"), "No space left on device"),
    "a package that is not installed": (2, ModuleNotFoundError("No module", name="torch"), "needs torch"),
    "a site that refuses": (3, JobRejected("site policy: model_archs does not list X"), "site policy"),
    "a spent budget": (3, PrivacyBudgetExceededError("epsilon 3 is spent"), "epsilon 3 is spent"),
    "a damaged ledger": (3, LedgerCorrupted("the chain breaks at entry 3"), "entry 3"),
    "a false claim": (3, VerificationFailed("the digest differs"), "the digest differs"),
    "any refusal of the platform": (3, AegisError("no"), "no"),
    "any refusal of the site": (3, EnclaveError("no"), "no"),
    "a run that waits": (4, RunPaused("round 2 cannot be completed"), "round 2"),
    "a fault of the program": (1, KeyError("seq"), "internal: KeyError: 'seq'"),
    "a module of our own that is missing": (1, ModuleNotFoundError("No module", name="aegis.x"), "internal"),
    "Ctrl-C": (130, KeyboardInterrupt(), "interrupted"),
    "a message over several lines": (2, InvalidJob("one\n  two\tthree"), "one two three"),
}


@pytest.mark.parametrize(("code", "raised", "said"), FAILURES.values(), ids=FAILURES)
def test_whatever_goes_wrong_is_one_line_and_an_exit_code(code: int, raised: BaseException, said: str) -> None:
    result = run_raising(raised)

    assert result.exit_code == code
    lines = [line for line in result.stderr.splitlines() if line]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert said in lines[0]
    assert result.stdout == ""


def test_a_fault_of_the_program_can_be_traced_on_demand() -> None:
    result = run_raising(KeyError("seq"), **{TRACEBACK_VARIABLE: "1"})

    assert isinstance(result.exception, KeyError)


MISUSES = {
    "an unknown command": (["bogus"], "No such command 'bogus'"),
    "an unknown option": (["--bogus"], "No such option"),
    "an unknown option of a command": (["verify", "--bogus"], "No such option"),
    "a command without its argument": (["verify"], "Missing argument 'RUN'"),
    "a command without its option": (["privacy", "calibrate", "--steps", "3"], "Missing option"),
    "an argument too many": (["privacy", "epsilon", "--delta", "1e-5", "3"], "unexpected extra argument"),
}


@pytest.mark.parametrize(("arguments", "said"), MISUSES.values(), ids=MISUSES)
def test_a_misused_command_says_in_one_line_what_is_wrong_and_where_help_is(
    aegis: Callable[..., Result], arguments: list[str], said: str
) -> None:
    result = aegis(*arguments)

    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert said in result.stderr
    assert "--help)" in result.stderr


def every_command(group: click.Group = cli.main, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    context = click.Context(group)
    found = [path]
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        nested = isinstance(command, click.Group)
        found += every_command(command, (*path, name)) if nested else [(*path, name)]
    return found


@pytest.mark.parametrize("path", every_command(), ids=" ".join)
def test_every_command_has_help_with_an_example(aegis: Callable[..., Result], path: tuple[str, ...]) -> None:
    result = aegis(*path, "--help")

    assert result.exit_code == 0
    assert "Example: aegis" in result.stdout


def test_the_list_of_commands_says_of_each_what_the_command_says_of_itself() -> None:
    for name, later in cli.COMMANDS.items():
        assert later.load().name == name


def test_neither_the_program_nor_its_help_nor_a_calculation_loads_a_framework() -> None:
    heavy = "torch opacus flwr matplotlib numba pandas pyarrow sklearn statsmodels rich"
    arguments = (
        ["--help"],
        ["privacy", "epsilon", "--segment", "1.0,1.0,3", "--delta", "1e-5"],
        ["verify", "--help"],
        ["run", "--help"],
    )
    code = (
        "import sys; from click.testing import CliRunner; from aegis.cli import main\n"
        f"codes = [CliRunner().invoke(main, arguments).exit_code for arguments in {arguments!r}]\n"
        f"print(codes, sorted(set({heavy!r}.split()) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.stdout.strip() == "[0, 0, 0, 0] []", done.stderr


def test_a_command_that_is_no_command_is_a_fault() -> None:
    group = CommandLine("program", later={"act": LazyCommand("aegis.errors:AegisError", "Wrong.")})

    result = CliRunner().invoke(group, ["act"])

    assert result.exit_code == 1
    assert "is not a command" in result.stderr


def test_a_group_can_be_run_without_ending_the_process() -> None:
    outcome: Any = cli.main.main(["privacy", "--help"], standalone_mode=False)

    assert outcome == 0


def test_the_version_is_said(aegis: Callable[..., Result]) -> None:
    assert aegis("--version").stdout.startswith("aegis 0.")


def test_the_script_itself_exits_with_the_code_and_the_line() -> None:
    command = [sys.executable, "-m", "aegis.cli", "privacy", "calibrate", "--target-epsilon", "-1", "--steps", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "must be in (0, 1000], got -1" in done.stderr
