"""The measure of the prose counts what it says it counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.prose import faults, measured

CLEAR = "Return the signed checkpoint of the log in an envelope."
RIDDLE = "Whoever was shown what it is of those that nobody told of this."


def written(folder: Path, *docstrings: str) -> Path:
    (folder / "module.py").write_text("\n\n".join(f'def f{n}():\n    """{d}"""' for n, d in enumerate(docstrings)))
    return folder


def test_the_share_of_a_sentence_is_that_of_its_vague_words(tmp_path: Path) -> None:
    (sentence,) = measured(written(tmp_path, "Returns what was sent to the site."))
    assert sentence.share == pytest.approx(2 / 7)


def test_short_sentences_and_doctests_do_not_count(tmp_path: Path) -> None:
    assert measured(written(tmp_path, "What it is.", "Add.\n\n    >>> what is that which it was then")) == []


def test_plain_sentences_pass_and_a_riddle_among_few_does_not(tmp_path: Path) -> None:
    assert faults(measured(written(tmp_path, *[CLEAR] * 9))) == []
    assert len(faults(measured(written(tmp_path, *[CLEAR] * 9, RIDDLE)))) == 1
    assert len(faults(measured(written(tmp_path, CLEAR, RIDDLE)))) == 2


def test_a_tree_without_docstrings_does_not_pass(tmp_path: Path) -> None:
    assert faults(measured(tmp_path)) == ["no sentence was found"]
