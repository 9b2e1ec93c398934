"""Every reason code has an explanation, the same one from both programs."""

from __future__ import annotations

import re

import click
import pytest
from click.testing import CliRunner

import aegis.cli
import coreason_enclave.main
from coreason_enclave.errors import Reason
from coreason_enclave.system import REASONS, waiting_helps

PROGRAMS = {"aegis": aegis.cli.main, "coreason-enclave": coreason_enclave.main.main}


def test_every_reason_has_an_explanation() -> None:
    assert set(REASONS) == set(Reason)
    assert all(words.site or words.coordinator for words in REASONS.values())


@pytest.mark.parametrize("code", ["policy", "lineage_unknown", "round_conflict", "norm_exceeded", "budget_exceeded"])
def test_waiting_never_removes(code: str) -> None:
    assert not waiting_helps(code)


def test_waiting_may_bring_a_silent_site_back() -> None:
    assert waiting_helps("no_reply")


@pytest.mark.parametrize("program", PROGRAMS)
def test_both_programs_explain_and_list_every_code(program: str) -> None:
    listed = CliRunner().invoke(PROGRAMS[program], ["explain"])
    one = CliRunner().invoke(PROGRAMS[program], ["explain", "round-conflict"])
    wrong = CliRunner().invoke(PROGRAMS[program], ["explain", "budget"])
    assert [line.split()[0] for line in listed.output.splitlines()] == [reason.value for reason in Reason]
    assert "another job_id" in one.output
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "did you mean 'budget_exceeded'?" in wrong.stderr


def test_every_command_that_an_explanation_names_exists() -> None:
    text = " ".join(f"{words.site} {words.coordinator}" for words in REASONS.values())
    for program, first, second in re.findall(r"\b(aegis|coreason-enclave) ([a-z]+)(?: ([a-z]+))?", text):
        root = PROGRAMS[program]
        command = root.get_command(click.Context(root), first)
        assert command is not None, f"{program} {first}"
        if isinstance(command, click.Group):
            assert second in command.list_commands(click.Context(command)), f"{program} {first} {second}"


def test_a_mistyped_command_gets_the_nearest_name() -> None:
    result = CliRunner().invoke(aegis.cli.main, ["fedration"])
    assert (result.exit_code, "Did you mean 'federation'?" in result.stderr) == (2, True)
