"""A remark on the rows reaches the site's own eyes, and neither its log nor the coordinator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coreason_enclave.wire.updates import SealedMessage

WORDS = "values lie outside [0, 0.1] and are clipped: is the range in the column's own unit?"


@pytest.fixture
def site(federation: Any) -> Any:
    """A site whose column "age" is a hundred times its declared range."""
    founded = federation.create()
    declaration = Path(founded.folder) / "data/clinic/visits/dataset.toml"
    text = declaration.read_text()
    declaration.write_text(text.replace("high = 10.0", "high = 0.1", 1))
    rows = declaration.with_name("rows.csv")
    header, *lines = rows.read_text().splitlines()
    cells = [line.split(",") for line in lines]
    rows.write_text("\n".join([header, *(",".join([who, "10.5", *rest]) for who, _, *rest in cells)]) + "\n")
    return founded


def ask(site: Any, federation: Any) -> SealedMessage:
    opened = site.open(clock=federation.clock, seed=3)
    try:
        answer: SealedMessage = opened.session.run(federation.order(federation.job()))
        return answer
    finally:
        opened.close()


def test_the_site_reads_that_a_column_is_of_another_unit(site: Any, federation: Any) -> None:
    ask(site, federation)
    path = Path(site.folder) / "validations.jsonl"
    assert path.stat().st_mode & 0o777 == 0o600
    (line,) = map(json.loads, path.read_text().splitlines())
    (warning,) = line["warnings"]
    assert warning.startswith("column 'age': ")
    assert warning.endswith(WORDS)
    assert (line["dataset"], line["job"], line["round"]) == ("clinic/visits", "study-1", 1)


def test_no_log_and_no_answer_holds_the_warning(site: Any, federation: Any) -> None:
    answer = ask(site, federation)
    said = repr(answer).encode() + answer.envelope
    assert "clipped" not in json.dumps(site.log())
    assert b"clipped" not in said
    for path in Path(site.folder).rglob("*"):
        if path.is_file() and path.name != "validations.jsonl":
            assert b"are clipped" not in path.read_bytes(), path


def test_a_file_that_cannot_be_written_does_not_tell_the_coordinator_of_the_warning(site: Any, federation: Any) -> None:
    path = Path(site.folder) / "validations.jsonl"
    path.touch(mode=0o644)
    path.chmod(0o644)
    assert ask(site, federation).envelope
    assert path.read_bytes() == b""


def test_rows_without_a_remark_leave_no_line(federation: Any) -> None:
    site = federation.create()
    ask(site, federation)
    assert not (Path(site.folder) / "validations.jsonl").exists()
