"""``docs/OPERATIONS.md``: its commands exist, its example of a site's configuration is one, its limits hold."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest

import aegis.cli
import coreason_enclave.main
from coreason_enclave.policy import SiteConfig
from tools import check_docs

PAGE = Path(__file__).resolve().parents[2] / "docs" / "OPERATIONS.md"
TEXT = PAGE.read_text(encoding="utf-8")
PROGRAMS: dict[str, click.Group] = {"aegis": aegis.cli.main, "coreason-enclave": coreason_enclave.main.main}


def commands() -> list[str]:
    blocks = [line for block in check_docs.parse(TEXT).blocks if block.info == "sh" for line in block.body.splitlines()]
    in_text = re.findall(r"`((?:aegis|coreason-enclave) [^`…]+)`", TEXT)
    return sorted({*blocks, *in_text})


@pytest.mark.parametrize("line", commands())
def test_a_command_on_the_page_exists_with_its_options(line: str) -> None:
    program, *words = shlex.split(line)
    command: click.Command = PROGRAMS[program]
    while isinstance(command, click.Group) and words:
        found = command.get_command(click.Context(command), words.pop(0))
        assert found is not None, line
        command = found
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}

    assert {word for word in words if word.startswith("--")} <= known


def test_the_site_configuration_on_the_page_is_one() -> None:
    (example,) = [block.body for block in check_docs.parse(TEXT).blocks if block.info == "toml"]

    assert SiteConfig.model_validate(tomllib.loads(example)).site_id == "clinic-1"


def test_a_site_on_another_host_takes_ten_commands_at_most() -> None:
    section = TEXT.split("## A site on another host", 1)[1].split("\n### ", 1)[0]
    numbered = re.findall(r"^\| (\d+) \|", section, flags=re.MULTILINE)

    assert 0 < len(numbered) <= 10
