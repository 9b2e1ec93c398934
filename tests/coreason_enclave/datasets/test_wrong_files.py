"""Each file of another form is refused with words for its form, and the remedy of these words reads the file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from coreason_enclave.datasets import DatasetSchemaRejected, open_dataset
from tests.coreason_enclave.datasets.conftest import TABLE_SCHEMA
from tests.coreason_enclave.datasets.wrong_files import WRONG_FILES, WrongFile

REMEDIED = {name: wrong for name, wrong in WRONG_FILES.items() if wrong.remedy is not None}


def _refusal(data_root: Path) -> DatasetSchemaRejected:
    with pytest.raises(DatasetSchemaRejected) as refused:
        open_dataset(data_root, "clinic/visits")
    return refused.value


@pytest.mark.parametrize("wrong", WRONG_FILES.values(), ids=WRONG_FILES.keys())
def test_a_wrong_file_is_named_as_what_it_seems_to_be(data_root: Path, write_dataset: Any, wrong: WrongFile) -> None:
    write_dataset(rows=wrong.data)
    assert str(_refusal(data_root)) == f"dataset 'clinic/visits' is refused: {wrong.message}"


@pytest.mark.parametrize("wrong", REMEDIED.values(), ids=REMEDIED.keys())
def test_the_named_remedy_reads_the_file(data_root: Path, write_dataset: Any, wrong: WrongFile) -> None:
    document = tomllib.loads(TABLE_SCHEMA)
    assert wrong.remedy is not None
    wrong.remedy(document)
    write_dataset(tomli_w.dumps(document), wrong.data)
    dataset = open_dataset(data_root, "clinic/visits")
    assert len(dataset) >= 1
    assert np.isfinite(dataset.features).all()


@pytest.mark.parametrize("wrong", WRONG_FILES.values(), ids=WRONG_FILES.keys())
def test_typed_remedies_hold_what_the_words_say(data_root: Path, write_dataset: Any, wrong: WrongFile) -> None:
    """The entries of each remedy, applied as TOML, read the file or lead to the next, different problem."""
    write_dataset(rows=wrong.data)
    document = tomllib.loads(TABLE_SCHEMA)
    refusal = _refusal(data_root)
    for problem in refusal.problems:
        if problem.remedy is None or any("[the names" in entry for entry in problem.remedy.entries):
            continue
        entries = tomllib.loads("\n".join(problem.remedy.entries))
        table = {"csv": document.setdefault("csv", {}), "label": document["label"], "": document}
        if problem.remedy.table in table:
            table[problem.remedy.table].update(entries)
    if document.get("csv") or "values" in document["label"]:
        write_dataset(tomli_w.dumps(document), wrong.data)
        assert len(open_dataset(data_root, "clinic/visits")) >= 1


PRIVATE = ["Иванов", "Петров", "张三", "José", "healthy", "young", "24.12.1980", "01/02/1990", "12 kg", "1,234", "p2"]


@pytest.mark.parametrize("wrong", WRONG_FILES.values(), ids=WRONG_FILES.keys())
def test_no_refusal_quotes_a_cell(data_root: Path, write_dataset: Any, wrong: WrongFile) -> None:
    write_dataset(rows=wrong.data)
    words = str(_refusal(data_root))
    assert [cell for cell in PRIVATE if cell in words] == []


def test_a_first_row_without_a_header_is_never_quoted(data_root: Path, write_dataset: Any) -> None:
    write_dataset(rows="Meier,67,HIV,HIV\nSchulz,50,flu,cold\n")
    words = str(_refusal(data_root))
    assert [cell for cell in ("Meier", "67", "HIV", "Schulz") if cell in words] == []


LINES: dict[str, tuple[str, str]] = {
    "a plain file": ("p,1,1,1\nq,old,1,1\n", "line 3"),
    "carriage returns": ("p,1,1,1\rq,old,1,1\r", "line 3"),
    "blank lines at the end": ("p,1,1,1\nq,old,1,1\n\n\n", "line 3"),
    "a blank line within": ("p,1,1,1\n\nq,old,1,1\n", "data row 2"),
    "a quoted line break": ('"p\np",1,1,1\nq,old,1,1\n', "data row 2"),
    "quotes without line breaks": ('"p","1",1,1\n"q",old,1,1\n', "line 3"),
}


@pytest.mark.parametrize(("rows", "place"), LINES.values(), ids=LINES.keys())
def test_a_place_is_the_line_of_the_file_where_lines_and_rows_correspond(
    data_root: Path, write_dataset: Any, rows: str, place: str
) -> None:
    header = "patient,age,income,visited"
    write_dataset(rows=header + ("\r" if "\r" in rows else "\n") + rows)
    assert f"(the first in {place})" in str(_refusal(data_root))


def test_another_number_of_columns_than_declared_is_named(data_root: Path, write_dataset: Any) -> None:
    columns = '[csv]\nheader = false\ncolumns = ["patient", "age", "income", "visited"]\n'
    write_dataset(TABLE_SCHEMA + columns, "p,1,1,1,x\n")
    assert "the first line has 5 cells, and [csv] columns names 4" in str(_refusal(data_root))


def test_lines_above_the_header_count_as_lines(data_root: Path, write_dataset: Any) -> None:
    write_dataset(TABLE_SCHEMA + "[csv]\nskip_rows = 2\n", "a\nb\npatient,age,income,visited\np,old,1,1\n")
    assert "(the first in line 4)" in str(_refusal(data_root))


def test_a_line_of_a_large_file_is_counted_across_blocks(data_root: Path, write_dataset: Any) -> None:
    rows = [f"p{n},{n % 100},1,1," + "x" * 300 for n in range(20_000)]
    rows[17_654] = "p,old,1,1,"
    write_dataset(rows="patient,age,income,visited,note\r\n" + "\r\n".join(rows))
    assert "1 of 20000 cells (the first in line 17656)" in str(_refusal(data_root))


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ('header = false\ncolumns = ["patient", "age", "income", "visited", "note"]', "seems to name the columns"),
        ('header = false\ncolumns = ["patient", "age", "income", "visited"]', "seems to name the columns"),
        ('compression = "gzip"', "seems to be uncompressed"),
        ('encoding = "utf-16"', "seems to be UTF-8 text, not UTF-16"),
        ('delimiter = ";"', "separated by commas"),
        ("skip_rows = 1", "a table with 0 lines before its header"),
        ("skip_rows = 900", "write `skip_rows = 0`"),
    ],
)
def test_a_wrong_declaration_of_a_plain_file_is_named(
    data_root: Path, write_dataset: Any, declared: str, words: str
) -> None:
    write_dataset(f"{TABLE_SCHEMA}[csv]\n{declared}\n")
    assert words in str(_refusal(data_root))
