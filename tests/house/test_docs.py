"""The documentation leads where it says it leads, and the checker that says so can find fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import check_docs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "README.md").write_text("# Index\n[home](../README.md)\n", encoding="utf-8")
    (tmp_path / "README.md").write_text("# Home\n\n## Two words, `code`\n", encoding="utf-8")
    return tmp_path


def test_every_internal_link_of_the_documentation_leads_somewhere() -> None:
    assert check_docs.broken_links(ROOT) == []


def test_every_page_can_be_reached_from_the_index() -> None:
    assert check_docs.unreachable_pages(ROOT) == []


BROKEN = {
    "a page that does not exist": "[x](missing.md)",
    "a page outside the repository": "[x](../../elsewhere.md)",
    "a heading that does not exist": "[x](../README.md#three-words)",
    "a picture that does not exist": "![x](plots/x.png)",
}


@pytest.mark.parametrize("line", BROKEN.values(), ids=BROKEN)
def test_a_link_without_a_target_is_found(tree: Path, line: str) -> None:
    (tree / "docs" / "README.md").write_text(f"# Index\n\n{line}\n", encoding="utf-8")

    (finding,) = check_docs.broken_links(tree)

    assert finding.startswith("docs/README.md:3: ")


SOUND = {
    "a heading by its fragment": "[x](../README.md#two-words-code)",
    "a heading on the same page": "[x](#index)",
    "another place on the network": "[x](https://example.org/missing.md)",
    "an example in code": "`[x](missing.md)`",
    "an example in a fence": "```md\n[x](missing.md)\n```",
    "a fence inside a longer fence": "````md\n```\n[x](missing.md)\n```\n````",
}


@pytest.mark.parametrize("line", SOUND.values(), ids=SOUND)
def test_a_link_that_leads_somewhere_is_left_alone(tree: Path, line: str) -> None:
    (tree / "docs" / "README.md").write_text(f"# Index\n\n{line}\n", encoding="utf-8")

    assert check_docs.broken_links(tree) == []


def test_a_page_that_nothing_links_to_is_found(tree: Path) -> None:
    (tree / "docs" / "lost.md").write_text("# Lost\n", encoding="utf-8")

    assert check_docs.unreachable_pages(tree) == ["docs/lost.md: no link leads here from docs/README.md"]


def test_a_page_two_links_away_counts_as_reached(tree: Path) -> None:
    (tree / "README.md").write_text("# Home\n[far](docs/far.md)\n", encoding="utf-8")
    (tree / "docs" / "far.md").write_text("# Far\n", encoding="utf-8")

    assert check_docs.unreachable_pages(tree) == []


def test_only_marked_blocks_run_and_a_failing_one_is_reported(tree: Path) -> None:
    text = "# Home\n```sh\nexit 7\n```\n\n```sh run\necho said; exit 3\n```\n```python run\nprint(1)\n```\n"
    (tree / "README.md").write_text(text, encoding="utf-8")

    outcomes = [check_docs.failed_run(tree, page, block) for page, block in check_docs.runnable_blocks(tree)]

    assert outcomes == ["README.md:6: exited 3: said", None]
