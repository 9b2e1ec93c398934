"""The same rows in CSV, gzip, Parquet and npz give the same arrays; files that lie about themselves are refused."""

from __future__ import annotations

import datetime
import gzip
import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreason_enclave.datasets import DatasetSchemaRejected, content_digest, open_dataset
from coreason_enclave.datasets.units import person, spelled_twice
from coreason_enclave.errors import DatasetRejected

TABLE = """
version = 1
dataset_id = "clinic/visits"
format = "parquet"
file = "rows.csv"
public = true
unit_column = "patient"
label = { column = "ill", values = ["no", "yes"] }
[[features]]
name = "age"
low = 0
high = 100
missing = 50
indicator = true
[[features]]
name = "site"
kind = "category"
categories = [1, 2]
[[features]]
name = "smoker"
kind = "boolean"
[[features]]
name = "seen"
kind = "date"
format = "%Y-%m-%d"
since = "2000-01-01"
low = 0
high = 1000
"""
FRAME = pd.DataFrame(
    {
        "patient": [7, 5, 7],
        "age": [20.5, np.nan, 80.0],
        "site": [2, 1, 9],
        "smoker": [True, False, True],
        "seen": [datetime.date(2000, 1, 1), datetime.date(2001, 1, 1), datetime.date(2002, 1, 1)],
        "ill": ["no", "yes", "no"],
        "note": ["x", "y", "z"],
    }
)


def _parquet(frame: pd.DataFrame, **options: Any) -> bytes:
    data = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), data, **options)
    return data.getvalue()


def test_parquet_and_csv_of_one_table_give_the_same_arrays(data_root: Path, write_dataset: Any) -> None:
    write_dataset(TABLE, _parquet(FRAME, row_group_size=2))
    typed = open_dataset(data_root, "clinic/visits")
    write_dataset(TABLE.replace('"parquet"', '"csv"'), FRAME.to_csv(index=False))
    text = open_dataset(data_root, "clinic/visits")
    assert typed.features.tobytes() == text.features.tobytes()
    assert typed.labels.tolist() == text.labels.tolist() == [0, 1, 0]
    assert typed.unit_ids is not None
    assert text.unit_ids is not None
    assert typed.unit_ids.tolist() == text.unit_ids.tolist() == [1, 0, 1]
    assert typed.features[:, 1].tolist() == [0, 1, 0]
    assert typed.features[:, 2:5].tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]


def test_the_digest_of_parquet_covers_schema_and_file(data_root: Path, write_dataset: Any) -> None:
    data = _parquet(FRAME)
    folder = write_dataset(TABLE, data)
    parts = (b"aegis.dataset.v1", (folder / "dataset.toml").read_bytes(), data)
    framed = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    expected = hashlib.sha256(framed).hexdigest()
    assert open_dataset(data_root, "clinic/visits").digest == expected == content_digest(data_root, "clinic/visits")


TYPED_PROBLEMS: dict[str, tuple[dict[str, Any], str]] = {
    "a number as text": ({"age": ["20", "young", "3"]}, "holds words in 1 of 3 cells (the first in data row 2)"),
    "an infinity": ({"age": [1.0, np.inf, 2.0]}, "not a finite number"),
    "booleans as numbers": ({"age": [True, False, True]}, "holds bool, and dataset.toml declares numbers"),
    "dates as numbers": ({"age": FRAME["seen"]}, "holds date32[day], and dataset.toml declares numbers"),
    "lists": ({"age": [[1], [2], [3]]}, "holds list<element: int64>: a cell must hold one value"),
    "a missing boolean": ({"smoker": [True, None, False]}, "'smoker': 1 cell is (the first in data row 2) missing"),
    "a label without a class": ({"ill": ["no", "maybe", "no"]}, "none of the declared values"),
    "a person without an id": ({"patient": [1.0, np.nan, 2.0]}, "every row needs the id of its person"),
}


@pytest.mark.parametrize(("change", "words"), TYPED_PROBLEMS.values(), ids=TYPED_PROBLEMS.keys())
def test_a_typed_column_of_another_meaning_is_refused(
    data_root: Path, write_dataset: Any, change: dict[str, Any], words: str
) -> None:
    write_dataset(TABLE, _parquet(FRAME.assign(**change)))
    with pytest.raises(DatasetSchemaRejected) as refused:
        open_dataset(data_root, "clinic/visits")
    assert words in str(refused.value)


def test_a_missing_column_and_no_rows_are_refused_in_parquet(data_root: Path, write_dataset: Any) -> None:
    write_dataset(TABLE, _parquet(FRAME.drop(columns=["age"])))
    with pytest.raises(DatasetSchemaRejected, match="column 'age': is missing"):
        open_dataset(data_root, "clinic/visits")
    write_dataset(TABLE, _parquet(FRAME.iloc[:0]))
    with pytest.raises(DatasetSchemaRejected, match="no rows"):
        open_dataset(data_root, "clinic/visits")


@pytest.mark.parametrize("keep", [8, 100, -20])
def test_half_a_parquet_file_is_refused(data_root: Path, write_dataset: Any, keep: int) -> None:
    write_dataset(TABLE, _parquet(FRAME)[:keep])
    with pytest.raises(DatasetSchemaRejected, match="not whole Parquet"):
        open_dataset(data_root, "clinic/visits")


OTHER_FORMS: dict[str, tuple[str, bytes, str]] = {
    "Parquet declared as CSV": ("csv", _parquet(FRAME), 'seems to be parquet, not csv: write `format = "parquet"` at'),
    "CSV declared as Parquet": ("parquet", b"patient,age\n1,2\n", "seems to be text such as CSV, not parquet"),
}


@pytest.mark.parametrize(("declared", "data", "words"), OTHER_FORMS.values(), ids=OTHER_FORMS.keys())
def test_a_file_of_another_format_is_named(
    data_root: Path, write_dataset: Any, declared: str, data: bytes, words: str
) -> None:
    write_dataset(TABLE.replace('"parquet"', f'"{declared}"'), data)
    with pytest.raises(DatasetSchemaRejected) as refused:
        open_dataset(data_root, "clinic/visits")
    assert words in str(refused.value)


CSV = """
version = 1
dataset_id = "clinic/visits"
format = "csv"
file = "rows.csv"
public = true
label = { column = "y", classes = 2 }
features = [{ name = "x", low = 0, high = 1 }]
"""


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (gzip.compress(b"x,y\n1,1\n")[:-4], "not whole gzip data"),
        (gzip.compress(b"x,y\n1,1\n") + b"rest", "not whole gzip data"),
        (gzip.compress(b"x,y\n" + b"1,1\n" * 100_000), "more than 2000 bytes of text"),
    ],
    ids=["cut short", "with a tail", "a bomb"],
)
def test_broken_gzip_is_refused(data_root: Path, write_dataset: Any, data: bytes, words: str) -> None:
    write_dataset(f'{CSV}[csv]\ncompression = "gzip"\n', data)
    with pytest.raises(DatasetSchemaRejected) as refused:
        open_dataset(data_root, "clinic/visits", max_bytes=2000)
    assert words in str(refused.value)


def test_a_row_longer_than_a_block_is_named(data_root: Path, write_dataset: Any) -> None:
    write_dataset(CSV, "x,y,note\n1,1," + "z" * (3 << 20) + "\n")
    with pytest.raises(DatasetSchemaRejected, match="a row is longer than 1 MiB"):
        open_dataset(data_root, "clinic/visits")


NPZ = """
version = 1
dataset_id = "clinic/visits"
format = "npz"
file = "rows.csv"
public = true
label = { column = "y", classes = 3 }
tensor = { shape = [2, 2], low = 0, high = 255 }
"""


def _npz(**arrays: Any) -> bytes:
    data = io.BytesIO()
    np.savez_compressed(data, **arrays)
    return data.getvalue()


SURVIVAL = NPZ.replace(
    "classes = 3", 'task = "survival", event = "died", cuts = [30, 90, 365]'
)  # y holds intervals and events


def _survival(y: Any) -> bytes:
    return _npz(x=np.zeros((len(y), 2, 2)), y=y)


def test_arrays_hold_survival_as_intervals_and_events(data_root: Path, write_dataset: Any) -> None:
    y = [[0, 1], [2, 1], [3, 0], [0, 0]]
    write_dataset(SURVIVAL, _survival(np.array(y, np.uint8)))
    labels = open_dataset(data_root, "clinic/visits").labels
    assert (labels.dtype, labels.tolist()) == (np.int64, y)


@pytest.mark.parametrize(
    "y",
    [
        np.array([[3, 1]]),  # an event after the last interval
        np.array([[4, 0]]),
        np.array([[-1, 0]]),
        np.array([[0, 2]]),
        np.array([[3, 255]], np.uint8),
        np.array([[2**64 - 1, 0]], np.uint64),
    ],
)
def test_survival_beyond_the_declared_intervals_is_refused(data_root: Path, write_dataset: Any, y: Any) -> None:
    write_dataset(SURVIVAL, _survival(y))
    with pytest.raises(DatasetSchemaRejected, match=r"not \(intervals lived through, event\): up to 3"):
        open_dataset(data_root, "clinic/visits")


@pytest.mark.parametrize("y", [np.array([1, 0]), np.array([[1.0, 0.0]]), np.array([[1, 0, 0]])])
def test_survival_of_another_form_is_refused(data_root: Path, write_dataset: Any, y: Any) -> None:
    write_dataset(SURVIVAL, _survival(y))
    with pytest.raises(DatasetSchemaRejected, match=r"'y': must be int64 .*, 2\)"):
        open_dataset(data_root, "clinic/visits")


def test_npz_of_bytes_is_scaled_by_its_declared_range(data_root: Path, write_dataset: Any) -> None:
    images = np.array([[[0, 255], [51, 204]]], np.uint8)
    write_dataset(NPZ, _npz(x=images, y=np.array([2], np.uint8)))
    dataset = open_dataset(data_root, "clinic/visits")
    assert np.allclose(dataset.features, [[[-1, 1], [-0.6, 0.6]]])
    assert (dataset.labels.dtype, dataset.labels.tolist()) == (np.int64, [2])


LABELLED: dict[str, tuple[str, Any, Any]] = {
    "numbers": ('task = "number", column = "y", low = 0, high = 10', [0.0, 5.0], [-1, 0]),
    "counts": ('task = "count", column = "y", high = 3', [2, 9], [2, 3]),
    "several labels": ('task = "labels", columns = ["a", "b"]', [[0, 1], [1, 1]], [[0, 1], [1, 1]]),
}


@pytest.mark.parametrize(("label", "y", "expected"), LABELLED.values(), ids=LABELLED.keys())
def test_labels_of_arrays_have_the_declared_form(
    data_root: Path, write_dataset: Any, label: str, y: Any, expected: Any
) -> None:
    schema = NPZ.replace('column = "y", classes = 3', label)
    write_dataset(schema, _npz(x=np.zeros((2, 2, 2)), y=np.array(y)))
    dataset = open_dataset(data_root, "clinic/visits")
    assert (dataset.labels.dtype, dataset.labels.tolist()) == (np.float32, expected)


BAD_NPZ: dict[str, tuple[bytes, str]] = {
    "pickled objects": (_npz(x=np.array([None] * 4).reshape(1, 2, 2), y=np.array([1])), "no npz archive of numbers"),
    "text": (_npz(x=np.full((1, 2, 2), "a"), y=np.array([1])), "'x': must be float32"),
    "a class out of range": (_npz(x=np.zeros((1, 2, 2)), y=np.array([3])), "not from 0 to 2"),
    "a NaN": (_npz(x=np.full((1, 2, 2), np.nan), y=np.array([1])), "not finite"),
    "another array": (_npz(x=np.zeros((1, 2, 2)), y=np.array([1]), z=np.zeros(1)), "'z': is not declared"),
    "half a file": (_npz(x=np.zeros((1, 2, 2)), y=np.array([1]))[:200], "no npz archive of numbers"),
}


@pytest.mark.parametrize(("data", "words"), BAD_NPZ.values(), ids=BAD_NPZ.keys())
def test_bad_arrays_are_refused(data_root: Path, write_dataset: Any, data: bytes, words: str) -> None:
    write_dataset(NPZ, data)
    with pytest.raises(DatasetSchemaRejected) as refused:
        open_dataset(data_root, "clinic/visits")
    assert words in str(refused.value)


def test_an_archive_that_unpacks_beyond_the_limit_is_refused(data_root: Path, write_dataset: Any) -> None:
    write_dataset(NPZ, _npz(x=np.zeros((10_000, 2, 2)), y=np.zeros(10_000, int)))
    with pytest.raises(DatasetSchemaRejected, match="larger than 50000 bytes"):
        open_dataset(data_root, "clinic/visits", max_bytes=50_000)


def test_an_archive_with_an_array_twice_is_refused(data_root: Path, write_dataset: Any) -> None:
    data = io.BytesIO(_npz(x=np.zeros((1, 2, 2)), y=np.array([1])))
    with zipfile.ZipFile(data, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("x.npy", b"")
    write_dataset(NPZ, data.getvalue())
    with pytest.raises(DatasetSchemaRejected, match="an array twice"):
        open_dataset(data_root, "clinic/visits")


def test_a_file_that_grows_while_it_is_parsed_is_refused(
    data_root: Path, write_dataset: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_dataset(CSV, "x,y\n" + "1,1\n" * 10)
    from coreason_enclave.datasets import reading

    real = reading.read_table

    def grow_then_read(schema: Any, table: Any) -> Any:
        with (folder / "rows.csv").open("ab") as file:
            file.write(b"0,0\n")
        return real(schema, table)

    monkeypatch.setattr(reading, "read_table", grow_then_read)
    with pytest.raises(DatasetRejected, match="changed while it was read"):
        open_dataset(data_root, "clinic/visits")


SUSPICIOUS = ["7", "007", "7.0", "７", " 7", "0.7e1", "70E-1", "+7", "\u200b7", "7\u2060"]


@pytest.mark.parametrize("spelling", SUSPICIOUS[1:])
def test_one_number_in_two_spellings_is_one_person(spelling: str) -> None:
    assert person(spelling) == "7"
    assert spelled_twice(pa.array(["7", "8", spelling]))


@given(st.lists(st.text("aA1e0.+- 7\u200b７ſS", min_size=1, max_size=5), min_size=1, max_size=8, unique=True))
def test_the_quick_search_for_suspicious_ids_agrees_with_folding_each(spellings: list[str]) -> None:
    assert spelled_twice(pa.array(spellings)) == (len(set(map(person, spellings))) < len(spellings))


@pytest.mark.parametrize("pair", [("1", "-1"), ("7", "70"), ("1e3", "1e4"), ("a1", "a2"), ("1.5", "15"), ("e1", "1e1")])
def test_ids_of_different_persons_stay_apart(pair: tuple[str, str]) -> None:
    assert not spelled_twice(pa.array(pair))
