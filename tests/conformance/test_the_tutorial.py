"""What docs/TUTORIAL.md says is what stands in the example, and its commands run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import check_docs

ROOT = Path(__file__).resolve().parents[2]
PAGE = Path("docs/TUTORIAL.md")
BLOCKS = [block for page, block in check_docs.runnable_blocks(ROOT) if page == PAGE]


def test_the_class_on_the_page_is_the_class_in_the_example() -> None:
    shown = next(block.body for block in check_docs.read(ROOT / PAGE).blocks if block.info == "python")
    written = (ROOT / "examples/secure_agent/agent.py").read_text(encoding="utf-8")
    assert shown[shown.index("class ") :] in written
    for line in shown[: shown.index("class ")].split():
        assert line in written


def test_the_page_has_commands_to_run() -> None:
    assert len(BLOCKS) == 2


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"line {block.number}")
def test_each_command_on_the_page_ends_well(block: check_docs.Block) -> None:
    assert check_docs.failed_run(ROOT, PAGE, block) is None
