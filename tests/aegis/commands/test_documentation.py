"""``docs/CLI.md`` says what the programs do: its examples are run, its tables compared."""

from __future__ import annotations

import doctest
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

import aegis.cli
import coreason_enclave.main
from aegis.verification import Check
from coreason_enclave.command_line import ExitCode
from tests.aegis.commands.evidence_files import bare, endorsing
from tests.support.owner_rows import write_rows
from tools import check_docs

PAGE = Path(__file__).resolve().parents[3] / "docs" / "CLI.md"
TEXT = PAGE.read_text(encoding="utf-8")
PROGRAMS: dict[str, click.Group] = {"aegis": aegis.cli.main, "coreason-enclave": coreason_enclave.main.main}


@dataclass(frozen=True)
class Example:
    command: str
    output: str


def examples() -> Iterator[Example]:
    for block in check_docs.parse(TEXT).blocks:
        if block.info == "console":
            for part in re.split(r"^\$ ", block.body, flags=re.MULTILINE)[1:]:
                command, _, output = part.partition("\n")
                yield Example(command, output)


def as_printed(command: str) -> str:
    program, *arguments = shlex.split(command)
    return CliRunner().invoke(PROGRAMS[program], arguments).output


def test_the_examples_print_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, study: Any) -> None:
    monkeypatch.chdir(study.root)
    job = study.write_job("study-1").read_text()
    (study.root / "typo.yaml").write_text(job.replace("target_epsilon: 8.0", "target_epsilon: -1"))
    forge_evidence(study.root)
    found_attested(study.root)
    write_rows(study.root, "binary")
    checker = doctest.OutputChecker()

    for example in examples():
        printed = as_printed(example.command)
        wanted = example.output.rstrip("\n") + "\n"
        assert checker.check_output(wanted, printed, doctest.ELLIPSIS), f"$ {example.command}\n{printed}"


def forge_evidence(folder: Path) -> None:
    """A report under a root that bears AMD's name and is ours."""
    for name, content in {"report.bin": bare("snp"), **endorsing("snp")}.items():
        (folder / name).write_bytes(content)
    (folder / "policy.toml").write_text('[attestation]\nkinds = ["snp"]\n')


def found_attested(folder: Path) -> None:
    """A federation that says what its sites have to prove."""
    (folder / "attested").mkdir()
    (folder / "attested" / "federation.toml").write_text(
        'profile = "production"\ndelta = 1e-5\n[public_keys]\n'
        f'clinic-1 = "{"1" * 64}"\n[attestation]\nkinds = ["snp"]\n'
    )


def test_the_page_has_an_example_to_run_for_every_command_that_ends_soon() -> None:
    shown = {" ".join(path) for path in commands() if any(e.command.startswith(" ".join(path)) for e in examples())}
    not_run = {"aegis demo", "aegis federation serve", "aegis federation up", "coreason-enclave agent"}

    assert shown == {" ".join(path) for path in commands()} - not_run


def commands() -> list[tuple[str, ...]]:
    return [path for name, group in PROGRAMS.items() for path in leaves(group, (name,))]


def leaves(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name)


def command_at(path: tuple[str, ...]) -> click.Command:
    command: click.Command = PROGRAMS[path[0]]
    for name in path[1:]:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), name)
        assert found is not None
        command = found
    return command


def section(title: str) -> str:
    match = re.search(rf"^(##+) {re.escape(title)}\n(.*?)(?=^##|\Z)", TEXT, flags=re.MULTILINE | re.DOTALL)
    assert match, f"no section {title}"
    return match[2]


@pytest.mark.parametrize("path", commands(), ids=" ".join)
def test_the_table_of_a_command_lists_its_options_and_no_others(path: tuple[str, ...]) -> None:
    documented = re.findall(r"^\| `(--[a-z-]+)` \|", section(" ".join(path)), flags=re.MULTILINE)
    options = [option.opts[0] for option in command_at(path).params if isinstance(option, click.Option)]

    assert documented == options


def test_the_findings_of_verify_are_listed_with_their_codes() -> None:
    rows = re.findall(r"^\| (\d+) \| (\w+) \| (.+) \|$", section("aegis verify"), flags=re.MULTILINE)

    assert rows == [(str(check.value), check.label, check.question) for check in Check]


@pytest.mark.parametrize(
    "text", [TEXT, aegis.cli.EXIT_CODES, coreason_enclave.main.EXIT_CODES], ids=["page", "aegis", "coreason-enclave"]
)
def test_every_exit_code_that_is_named_exists(text: str) -> None:
    named = {int(code) for code in re.findall(r"^(?:\| |  )(\d+)\b", text, flags=re.MULTILINE)}

    assert named <= {*ExitCode, *Check}
    assert {0, 1, 2, 3, 130} <= named


def test_the_comparison_can_fail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    checker: Callable[[str, str, int], bool] = doctest.OutputChecker().check_output

    assert not checker("epsilon 2.9 at ...\n", as_printed("aegis --version"), doctest.ELLIPSIS)
