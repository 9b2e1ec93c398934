"""docs/YOUR_DATA.md is run: its snippet, its commands, and the messages that it quotes."""

from __future__ import annotations

import doctest
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from aegis.cli import main
from tools import check_docs

BLOCKS = check_docs.parse(Path("docs/YOUR_DATA.md").resolve().read_text(encoding="utf-8")).blocks
QUICK = " --runtime in-process --no-baseline --set rounds=4 --set average_last_rounds=2"


def aegis(command: str) -> str:
    program, *arguments = shlex.split(command)
    assert program == "aegis"
    return CliRunner().invoke(main, arguments).output


def follow(commands: list[str]) -> None:
    for command in commands:
        result = CliRunner().invoke(main, shlex.split(command)[1:])
        assert result.exit_code == 0, f"$ {command}\n{result.output}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the page's files."""
    monkeypatch.chdir(tmp_path)
    (snippet,) = (block.body for block in BLOCKS if block.info == "python")
    subprocess.run([sys.executable, "-c", snippet], check=True, timeout=60)
    return tmp_path


def commands() -> list[str]:
    return [line for block in BLOCKS if block.info == "sh" for line in block.body.splitlines() if line]


def test_every_command_of_the_page_works_and_every_message_is_the_real_one(folder: Path) -> None:
    follow([command + QUICK if command.startswith("aegis run ") else command for command in commands()])
    assert (folder / "study" / "runs" / "2" / "summary.md").is_file()

    (quoted,) = (block.body for block in BLOCKS if block.info == "console")
    checker = doctest.OutputChecker()
    for part in re.split(r"^\$ ", quoted, flags=re.MULTILINE)[1:]:
        command, _, wanted = part.partition("\n")
        printed = aegis(command)
        assert checker.check_output(wanted.rstrip() + "\n", printed, doctest.ELLIPSIS), f"$ {command}\n{printed}"
    assert not (folder / "other").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_page_works_as_it_stands(folder: Path) -> None:
    follow(commands())
