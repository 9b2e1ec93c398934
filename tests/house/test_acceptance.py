"""The acceptance table reports what its commands did: no file, no pass."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tools import acceptance
from tools.acceptance import Outcome, Stage

MANDATED = {
    "architecture",
    "DP engine",
    "coordinator",
    "API",
    "CLI",
    "dashboard",
    "compliance",
    "security tests",
    "deploy",
    "examples",
    "docs",
    "benchmarks",
}


def stage(command: str, *needs: str) -> Stage:
    return Stage("a stage", "it holds", command, needs or (".",))


def test_every_stage_of_the_product_has_a_row() -> None:
    assert {row.name for row in acceptance.load(acceptance.ROWS)} >= MANDATED


def test_a_command_that_exits_zero_has_passed_and_its_last_line_is_kept(tmp_path: Path) -> None:
    result = acceptance.show(stage("sh -c 'echo first; echo ==== 3 passed ===='"), tmp_path)

    assert (result.outcome, result.said) == (Outcome.PASSED, "3 passed")


@pytest.mark.parametrize("command", ["sh -c 'exit 3'", "python -m pytest -q none_here.py"])
def test_any_other_exit_has_failed(tmp_path: Path, command: str) -> None:
    assert acceptance.show(stage(command), tmp_path).outcome is Outcome.FAILED


def test_a_stage_with_a_missing_file_is_not_built_and_its_command_does_not_run(tmp_path: Path) -> None:
    result = acceptance.show(stage("touch ran", "missing.py"), tmp_path)

    assert result.outcome is Outcome.NOT_BUILT
    assert not (tmp_path / "ran").exists()


def test_the_page_counts_what_is_not_built_apart_from_what_passed(tmp_path: Path) -> None:
    results = [acceptance.show(row, tmp_path) for row in (stage("true"), stage("true", "missing"), stage("false"))]

    page = acceptance.as_page(results, "a tree", datetime(2026, 1, 2, tzinfo=UTC))

    assert "**1 passed, 1 failed, 1 not built**" in page
    assert page.count("| passed |") == 1


def test_what_a_command_prints_cannot_break_the_table(tmp_path: Path) -> None:
    result = acceptance.show(stage("echo 'a | b <c>'"), tmp_path)

    page = acceptance.as_page([result], "a tree", datetime(2026, 1, 2, tzinfo=UTC))

    assert "a \\| b &lt;c>" in page
