from __future__ import annotations

import subprocess
import sys
import tomllib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from coreason_enclave.datasets import DatasetExpectation, DatasetSchema, Feature, parse_schema
from coreason_enclave.errors import DatasetRejected, Reason
from coreason_enclave.schemas import PrivacyUnit, explain

TABLE = b"""
version = 1
dataset_id = "clinic/visits"
format = "csv"
file = "rows.csv"
public = false
unit_column = "patient"
label = { column = "visited", classes = 2 }
features = [{ name = "age", low = 0, high = 100 }, { name = "income", low = -10.0, high = 10.0, missing = 5 }]
"""
TENSOR = b"""
version = 1
dataset_id = "digits"
format = "safetensors"
file = "rows.safetensors"
public = true
label = { column = "y", classes = 10 }
tensor = { shape = [1, 2, 2], low = 0.0, high = 16.0 }
"""


def _table(**changes: object) -> dict[str, Any]:
    return {**tomllib.loads(TABLE.decode()), **changes}


def test_a_table_says_its_unit_and_the_shape_of_an_example() -> None:
    schema = parse_schema(TABLE)
    assert (schema.unit, schema.sample_shape, schema.label.classes) == (PrivacyUnit.PERSON, (2,), 2)


def test_a_tensor_dataset_without_units_is_at_record_level() -> None:
    schema = parse_schema(TENSOR)
    assert (schema.unit, schema.sample_shape) == (PrivacyUnit.RECORD, (1, 2, 2))


AGE = {"name": "age", "low": 0.0, "high": 100.0}
WRONG: dict[str, tuple[dict[str, object], str]] = {
    "an unknown version": ({"version": 2}, "version"),
    "an id with a climb": ({"dataset_id": "../x"}, "dataset_id"),
    "a file that is a path": ({"file": "../rows.csv"}, "file"),
    "a file that is hidden": ({"file": ".rows.csv"}, "file"),
    "an unknown format": ({"format": "pickle"}, "format"),
    "public as text": ({"public": "false"}, "public"),
    "public as a number": ({"public": 1}, "public"),
    "an unknown field": ({"sql": "select"}, "sql is not a known field"),
    "no features": ({"features": []}, "needs [[features]]"),
    "a tensor beside features": ({"tensor": {"shape": [1], "low": 0.0, "high": 1.0}}, "needs [[features]]"),
    "one class": ({"label": {"column": "visited", "classes": 1}}, "classes"),
    "classes as text": ({"label": {"column": "visited", "classes": "2"}}, "classes"),
    "classes as truth": ({"label": {"column": "visited", "classes": True}}, "classes"),
    "the label among the features": ({"label": {"column": "age", "classes": 2}}, "age has two roles"),
    "the person among the features": ({"unit_column": "age"}, "age has two roles"),
    "a feature twice": ({"features": [AGE, AGE]}, "age has two roles"),
    "an empty range": ({"features": [{**AGE, "high": 0.0}]}, "low below high"),
    "a reversed range": ({"features": [{**AGE, "low": 200.0}]}, "low below high"),
    "an infinite range": ({"features": [{**AGE, "high": float("inf")}]}, "high"),
    "a NaN in a range": ({"features": [{**AGE, "low": float("nan")}]}, "low"),
    "a range beyond what float64 can scale": ({"features": [{**AGE, "high": 1e308}]}, "high"),
    "a bound as text": ({"features": [{**AGE, "high": "100"}]}, "high"),
    "a bound as truth": ({"features": [{**AGE, "high": True}]}, "high"),
    "a feature without a range": ({"features": [{"name": "age"}]}, "low is required"),
    "a stand-in out of range": ({"features": [{**AGE, "missing": 101.0}]}, "missing within"),
    "a stand-in that is a statistic": ({"features": [{**AGE, "missing": "mean"}]}, "missing"),
    "a column name with a line feed": ({"unit_column": "patient\n"}, "unit_column"),
    "an empty column name": ({"unit_column": ""}, "unit_column"),
}


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_schema_is_refused_with_the_field_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        DatasetSchema.model_validate(_table(**changes))
    assert message in explain(refused.value)


@pytest.mark.parametrize("field", ["version", "dataset_id", "format", "file", "public", "label"])
def test_no_guarantee_has_a_default(field: str) -> None:
    document = _table()
    del document[field]
    with pytest.raises(ValueError, match=field):
        DatasetSchema.model_validate(document)


@pytest.mark.parametrize(
    "changes",
    [{"unit_column": "person"}, {"label": {"column": "label", "classes": 10}}, {"features": [AGE]}, {"tensor": None}],
)
def test_a_tensor_schema_names_the_tensors_as_they_are_called(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="needs"):
        DatasetSchema.model_validate({**tomllib.loads(TENSOR.decode()), **changes})


@pytest.mark.parametrize("data", [b"", b"version = ", b"\xff\xfe", b"version = 1\nversion = 1", b"[[features]]"])
def test_bytes_that_are_no_schema_are_refused_by_a_typed_error(data: bytes) -> None:
    with pytest.raises(DatasetRejected) as refused:
        parse_schema(data)
    assert refused.value.reason is Reason.DATASET_SCHEMA


def test_scaling_maps_the_declared_range_and_clips_what_lies_outside() -> None:
    scaled = parse_schema(TABLE).scale({"age": [0, 25, 100, -3, 1e9], "income": [-10, 0, 10, 5, 99]})
    assert scaled.dtype == np.float32
    assert scaled.T.tolist() == [[-1, -0.5, 1, -1, 1], [-1, 0, 1, 0.5, 1]]


def test_a_missing_cell_takes_the_declared_stand_in_never_a_statistic() -> None:
    scaled = parse_schema(TABLE).scale({"age": [0, 0, 0], "income": [np.nan, 10, 10]})
    assert scaled[:, 1].tolist() == [0.5, 1, 1]


UNSCALABLE: dict[str, dict[str, object]] = {
    "a column absent": {"age": [1.0]},
    "columns of two lengths": {"age": [1.0, 2.0], "income": [1.0]},
    "a missing cell without a stand-in": {"age": [np.nan], "income": [1.0]},
    "an infinity": {"age": [np.inf], "income": [1.0]},
    "text": {"age": ["1"], "income": [1.0]},
    "truth values": {"age": [True], "income": [1.0]},
    "a matrix": {"age": [[1.0]], "income": [1.0]},
}


@pytest.mark.parametrize("columns", UNSCALABLE.values(), ids=UNSCALABLE.keys())
def test_columns_that_cannot_be_scaled_are_refused(columns: dict[str, Any]) -> None:
    with pytest.raises(DatasetRejected):
        parse_schema(TABLE).scale(columns)


def test_a_tensor_is_scaled_by_its_declared_range() -> None:
    schema = parse_schema(TENSOR)
    assert schema.scale_tensor(np.full((3, 1, 2, 2), 12, np.float32)).tolist() == np.full((3, 1, 2, 2), 0.5).tolist()
    with pytest.raises(DatasetRejected, match="shape"):
        schema.scale_tensor(np.zeros((3, 4), np.float32))
    with pytest.raises(DatasetRejected, match="finite"):
        schema.scale_tensor(np.full((3, 1, 2, 2), np.nan))


def test_each_kind_of_dataset_has_its_own_scaling() -> None:
    with pytest.raises(DatasetRejected):
        parse_schema(TENSOR).scale({})
    with pytest.raises(DatasetRejected):
        parse_schema(TABLE).scale_tensor(np.zeros((1, 2)))


BOUNDS = st.floats(-1e15, 1e15, allow_nan=False)


@given(BOUNDS, BOUNDS, st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=20))
def test_scaled_values_stay_in_the_unit_range_in_order_and_alone(low: float, high: float, values: list[float]) -> None:
    if not low < high:
        return
    feature = Feature(name="age", low=low, high=high)
    scaled = feature.encode(np.sort(np.array(values)))[:, 0]
    assert np.all(np.abs(scaled) <= 1)
    assert np.all(np.diff(scaled) >= 0)
    alone = feature.encode(np.array(values[:1]))[:, 0]
    assert alone[0] in scaled  # a row's value depends on no other row


def test_an_expectation_names_what_it_misses() -> None:
    expected = DatasetExpectation(sample_shape=(3,), classes=2, unit=PrivacyUnit.RECORD, public=False)
    unmet = expected.unmet_by(parse_schema(TABLE))
    assert [text.split()[0] for text in unmet] == ["sample_shape", "unit"]
    assert DatasetExpectation().unmet_by(parse_schema(TABLE)) == ()


def test_the_schema_can_be_read_without_pyarrow_and_torch() -> None:
    program = (
        "import sys; from coreason_enclave.datasets import parse_schema; "
        "print({'pandas', 'pyarrow', 'torch'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


def test_an_older_declaration_is_written_back_without_entries_that_it_did_not_have() -> None:
    """The demonstration writes its declaration into each site's folder, and the bytes enter the dataset's digest."""
    written = parse_schema(TABLE).model_dump(mode="json", exclude_none=True)
    assert list(written) == ["version", "dataset_id", "format", "file", "public", "unit_column", "label", "features"]
    assert written["label"] == {"column": "visited", "classes": 2}
    assert [list(feature.items()) for feature in written["features"]] == [
        [("low", 0.0), ("high", 100.0), ("name", "age"), ("missing", "refuse")],
        [("low", -10.0), ("high", 10.0), ("name", "income"), ("missing", 5.0)],
    ]


def test_a_newer_declaration_is_written_back_with_its_entries() -> None:
    features = [{"name": "age", "low": 0.0, "high": 9.0, "missing": 1.0, "indicator": True}]
    schema = DatasetSchema.model_validate(_table(features=features, csv={"delimiter": ";"}))
    assert DatasetSchema.model_validate(schema.model_dump(mode="json", exclude_none=True)) == schema
    assert schema.model_dump(mode="json")["features"][0]["indicator"] is True
