from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from coreason_enclave.datasets import DatasetSchemaRejected, SchemaProblem, open_dataset
from coreason_enclave.errors import ConfigurationError, DatasetRejected, Reason

HEADER = "patient,age,income,visited\n"
TENSOR_SCHEMA = """
version = 1
dataset_id = "digits"
format = "safetensors"
file = "rows.safetensors"
public = true
label = { column = "y", classes = 3 }
tensor = { shape = [2, 2], low = 0.0, high = 4.0 }
"""


def test_a_table_becomes_scaled_features_labels_and_unit_codes(data_root: Path, write_dataset: Any) -> None:
    write_dataset()
    dataset = open_dataset(data_root, "clinic/visits")
    assert dataset.features.dtype == np.float32
    assert dataset.features.tolist() == [[0, 1], [-1, 0], [1, -0.5]]
    assert (dataset.labels.dtype, dataset.labels.tolist()) == (np.int64, [1, 0, 1])
    assert dataset.unit_ids is not None
    assert (dataset.unit_ids.dtype, dataset.unit_ids.tolist()) == (np.int64, [1, 0, 1])
    assert (len(dataset), dataset.num_units) == (3, 2)


def test_without_a_unit_column_every_row_is_a_unit(data_root: Path, write_dataset: Any) -> None:
    folder = write_dataset()
    schema = (folder / "dataset.toml").read_text().replace('unit_column = "patient"\n', "")
    write_dataset(schema)
    dataset = open_dataset(data_root, "clinic/visits")
    assert dataset.unit_ids is None
    assert dataset.num_units == 3


def test_the_same_bytes_give_the_same_arrays_and_digest(data_root: Path, write_dataset: Any) -> None:
    write_dataset()
    one, two = open_dataset(data_root, "clinic/visits"), open_dataset(data_root, "clinic/visits")
    assert one.features.tobytes() == two.features.tobytes()
    assert one.digest == two.digest


def test_the_digest_covers_every_byte_of_schema_and_rows_and_their_boundary(
    data_root: Path, write_dataset: Any
) -> None:
    folder = write_dataset()
    schema, rows = (folder / "dataset.toml").read_bytes(), (folder / "rows.csv").read_bytes()
    domain = b"aegis.dataset.v1"
    framed = b"".join(len(part).to_bytes(8, "big") + part for part in (domain, schema, rows))
    digests = {open_dataset(data_root, "clinic/visits").digest}
    assert digests == {hashlib.sha256(framed).hexdigest()}
    write_dataset(schema.decode() + "\n")
    digests.add(open_dataset(data_root, "clinic/visits").digest)
    write_dataset(schema.decode(), rows + b"p3,1,1,1,w\n")
    digests.add(open_dataset(data_root, "clinic/visits").digest)
    assert len(digests) == 3


def test_showing_a_dataset_shows_none_of_its_rows(data_root: Path, write_dataset: Any) -> None:
    write_dataset()
    shown = repr(open_dataset(data_root, "clinic/visits"))
    assert "array" not in shown
    assert "features" not in shown


BAD_TABLES: dict[str, tuple[str | bytes, list[tuple[str | None, str]]]] = {
    "an empty file": ("", [(None, "empty")]),
    "a header alone": (HEADER, [(None, "no rows")]),
    "a missing feature": ("patient,income,visited\np,1,1\n", [("age", "is missing")]),
    "a missing label": ("patient,age,income\np,1,1\n", [("visited", "is missing")]),
    "a missing unit column": ("age,income,visited\n1,1,1\n", [("patient", "is missing")]),
    "a column twice": ("patient,age,age,income,visited\np,1,2,1,1\n", [("age", "more than once")]),
    "an undeclared column twice": ("patient,age,income,visited,n,n\np,1,2,1,1,1\n", [(None, "columns 5 and 6")]),
    "a surplus cell in a row": (HEADER + "p,1,1,1\nq,1,1,1,9\n", [(None, "not a table")]),
    "a row cut short": (HEADER + "p,1,1\n", [(None, "line 2 has 3 cells, the first row has 4")]),
    "text in a feature": (HEADER + "p,1,1,1\np,old,1,1\n", [("age", "1 of 2 cells (the first in line 3), not finite")]),
    "infinity in a feature": (HEADER + "p,inf,1,1\n", [("age", "not a finite number")]),
    "an overflowing number": (HEADER + "p,1e999,1,1\n", [("age", "not a finite number")]),
    "a hexadecimal number": (HEADER + "p,0x10,1,1\n", [("age", "not a finite number")]),
    "digits with underscores": (HEADER + "p,1_0,1,1\n", [("age", "not a finite number")]),
    "digits of another script": (HEADER + "p,٣,1,1\n", [("age", "not a finite number")]),
    "a truth value": (HEADER + "p,True,1,1\n", [("age", "holds yes and no")]),
    "a date": (HEADER + "p,2020-01-01,1,1\n", [("age", "holds dates")]),
    "a decimal comma": (HEADER + 'p,"1,5",1,1\n', [("age", "not a finite number")]),
    "a missing cell without a stand-in": (HEADER + "p,,1,1\nq,NA,1,1\n", [("age", "2 cells are")]),
    "a label out of range": (HEADER + "p,1,1,2\n", [("visited", "whole number from 0 to 1")]),
    "a negative label": (HEADER + "p,1,1,-1\n", [("visited", "whole number from 0 to 1")]),
    "half a label": (HEADER + "p,1,1,0.5\n", [("visited", "whole number from 0 to 1")]),
    "a missing label cell": (HEADER + "p,1,1,\n", [("visited", "every row needs a label")]),
    "a missing unit id": (HEADER + ",1,1,1\n", [("patient", "every row needs the id of its person")]),
    "a unit id that says missing": (HEADER + "NaN,1,1,1\n", [("patient", "every row needs the id of its person")]),
    "a unit id with a space": (HEADER + "7,1,1,1\n7 ,1,1,1\n", [("patient", "different ways")]),
    "a unit id as a float": (HEADER + "7,1,1,1\n7.0,1,1,1\n", [("patient", "different ways")]),
    "a unit id with leading zeros": (HEADER + "7,1,1,1\n007,1,1,1\n", [("patient", "different ways")]),
    "a unit id in another case": (HEADER + "p7,1,1,1\nP7,1,1,1\n", [("patient", "different ways")]),
    "a unit id in fullwidth digits": (HEADER + "7,1,1,1\n７,1,1,1\n", [("patient", "different ways")]),
    "a NUL byte": (HEADER.encode() + b"p,1\0,1,1\n", [(None, "NUL")]),
    "another encoding": (HEADER.encode() + "pé,1,1,1\n".encode("latin-1"), [(None, "UTF-8")]),
    "an unclosed quote": (HEADER + 'p,"1,1,1\n', [(None, "not a table")]),
    "three problems at once": (
        HEADER + "p,old,1,7\n,1,1,1\n",
        [("age", "finite"), ("visited", "whole number"), ("patient", "person")],
    ),
}


@pytest.mark.parametrize(("rows", "problems"), BAD_TABLES.values(), ids=BAD_TABLES.keys())
def test_a_bad_table_is_refused_with_every_problem_named_by_column(
    data_root: Path, write_dataset: Any, rows: str | bytes, problems: list[tuple[str | None, str]]
) -> None:
    write_dataset(rows=rows)
    with pytest.raises(DatasetSchemaRejected) as refused:
        open_dataset(data_root, "clinic/visits")
    found = refused.value.problems
    assert [problem.column for problem in found] == [column for column, _ in problems]
    for problem, (_, words) in zip(found, problems, strict=True):
        assert words in problem.problem
        assert str(problem) in str(refused.value)
    assert refused.value.reason is Reason.DATASET_SCHEMA


def test_a_refusal_quotes_no_cell(data_root: Path, write_dataset: Any) -> None:
    write_dataset(rows=HEADER + "patient-zero,sixtyseven,1,HIV\n")
    with pytest.raises(DatasetSchemaRejected) as refused:
        open_dataset(data_root, "clinic/visits")
    assert not [cell for cell in ("patient-zero", "sixtyseven", "HIV") if cell in str(refused.value)]


def test_many_problems_are_summed_up_in_the_message_and_kept_in_the_error() -> None:
    error = DatasetSchemaRejected("clinic", [SchemaProblem(f"c{n}", "is missing") for n in range(50)])
    assert len(error.problems) == 50
    assert "and 30 more" in str(error)
    assert "c19" in str(error)
    assert "c20" not in str(error)


@pytest.mark.parametrize(
    "rows",
    [
        "\ufeff" + HEADER + "p,50,10,1\n",
        HEADER.replace("\n", "\r\n") + "p,50,10,1\r\n",
        HEADER + '"p","50","10","1"\n',
        HEADER + "p,5e1,+10.,1.0\n\n",
        "visited,income,patient,age\n1,10,p,50",
    ],
    ids=["a byte order mark", "CRLF", "quotes", "float notations", "another order of columns"],
)
def test_harmless_ways_of_writing_a_table_mean_the_same(data_root: Path, write_dataset: Any, rows: str) -> None:
    write_dataset(rows=rows)
    dataset = open_dataset(data_root, "clinic/visits")
    assert (dataset.features.tolist(), dataset.labels.tolist()) == ([[0, 1]], [1])


def test_numbers_are_read_exactly(data_root: Path, write_dataset: Any) -> None:
    values = np.random.default_rng(0).uniform(0, 100, 200)
    write_dataset(rows=HEADER + "".join(f"p{n},{value!r},0,1\n" for n, value in enumerate(values.tolist())))
    expected = (values / 100 * 2 - 1).astype(np.float32)
    assert np.array_equal(open_dataset(data_root, "clinic/visits").features[:, 0], expected)


def test_without_pyarrow_a_table_is_a_matter_of_installation(
    data_root: Path, write_dataset: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset()
    monkeypatch.setitem(sys.modules, "pyarrow.compute", None)
    with pytest.raises(ConfigurationError, match=r"aegis-fl\[tables\]"):
        open_dataset(data_root, "clinic/visits")


def test_a_schema_that_declares_another_id_is_refused(data_root: Path, write_dataset: Any) -> None:
    write_dataset(folder="clinic/other")
    with pytest.raises(DatasetSchemaRejected, match="another dataset_id"):
        open_dataset(data_root, "clinic/other")


def test_a_file_above_the_cap_is_refused(data_root: Path, write_dataset: Any) -> None:
    write_dataset()
    with pytest.raises(DatasetRejected, match="larger than 10 bytes"):
        open_dataset(data_root, "clinic/visits", max_bytes=10)


@pytest.mark.parametrize("name", ["dataset.toml", "rows.csv"])
def test_a_linked_file_in_the_dataset_is_refused(data_root: Path, write_dataset: Any, name: str) -> None:
    folder = write_dataset()
    (folder / name).rename(folder / "real")
    (folder / name).symlink_to(folder / "real")
    with pytest.raises(DatasetRejected) as refused:
        open_dataset(data_root, "clinic/visits")
    assert refused.value.reason is Reason.DATASET_PATH


def _digits(root: Path, tensors: dict[str, np.ndarray], schema: str = TENSOR_SCHEMA) -> None:
    folder = root / "digits"
    folder.mkdir(exist_ok=True)
    (folder / "dataset.toml").write_text(schema)
    (folder / "rows.safetensors").write_bytes(safetensors.numpy.save(tensors))


def _tensors(**changes: np.ndarray) -> dict[str, np.ndarray]:
    return {"x": np.full((2, 2, 2), 3, np.float32), "y": np.array([0, 2]), **changes}


def test_tensors_are_read_and_scaled(data_root: Path) -> None:
    _digits(data_root, _tensors())
    dataset = open_dataset(data_root, "digits")
    assert dataset.features.shape == (2, 2, 2)
    assert np.all(dataset.features == 0.5)
    assert dataset.labels.tolist() == [0, 2]
    assert dataset.unit_ids is None


def test_declared_units_of_tensors_become_codes(data_root: Path) -> None:
    schema = TENSOR_SCHEMA.replace("public = true", 'public = true\nunit_column = "unit"')
    _digits(data_root, _tensors(unit=np.array([900, -4])), schema)
    dataset = open_dataset(data_root, "digits")
    assert dataset.unit_ids is not None
    assert dataset.unit_ids.tolist() == [1, 0]


BAD_TENSORS: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "no labels": ({"x": np.zeros((2, 2, 2), np.float32)}, "'y': is missing"),
    "undeclared units": (_tensors(unit=np.array([1, 1])), "'unit': is not declared"),
    "another tensor": (_tensors(z=np.array([1, 1])), "'z': is not declared"),
    "float64 features": (_tensors(x=np.zeros((2, 2, 2))), "'x': must be float32"),
    "float labels": (_tensors(y=np.zeros(2, np.float32)), "'y': must be int64"),
    "another shape": (_tensors(x=np.zeros((2, 4), np.float32)), "'x': must be float32 (2, 2, 2)"),
    "another number of labels": (_tensors(y=np.zeros(3, np.int64)), "'x': must be float32 (3, 2, 2)"),
    "labels in a matrix": (_tensors(y=np.zeros((2, 1), np.int64)), "'y': must be int64 (2,)"),
    "no rows": ({"x": np.zeros((0, 2, 2), np.float32), "y": np.zeros(0, np.int64)}, "no rows"),
    "a NaN": (_tensors(x=np.full((2, 2, 2), np.nan, np.float32)), "not finite"),
    "a label out of range": (_tensors(y=np.array([0, 3])), "from 0 to 2"),
    "a negative label": (_tensors(y=np.array([0, -1])), "from 0 to 2"),
}


@pytest.mark.parametrize(("tensors", "message"), BAD_TENSORS.values(), ids=BAD_TENSORS.keys())
def test_bad_tensors_are_refused(data_root: Path, tensors: dict[str, np.ndarray], message: str) -> None:
    _digits(data_root, tensors)
    with pytest.raises(DatasetSchemaRejected) as refused:
        open_dataset(data_root, "digits")
    assert message in str(refused.value)


def test_bytes_that_are_no_safetensors_are_refused(data_root: Path) -> None:
    _digits(data_root, _tensors())
    (data_root / "digits" / "rows.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(DatasetSchemaRejected, match="Python pickle, not safetensors"):
        open_dataset(data_root, "digits")
