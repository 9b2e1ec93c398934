"""Every form of a label: read from a file, calculated by hand, refused where a value is no label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreason_enclave.datasets import (
    DatasetExpectation,
    DatasetSchemaRejected,
    Label,
    LabelTask,
    open_dataset,
    parse_schema,
    synthetic_dataset,
)
from coreason_enclave.errors import DatasetRejected

BASE = """
version = 1
dataset_id = "clinic/visits"
format = "csv"
file = "rows.csv"
public = true
features = [{ name = "x", low = 0, high = 1 }]
"""
SURVIVAL = 'task = "survival"\ncolumn = "days"\nevent = "died"\ncuts = [30, 90, 365]'

FORMS: dict[str, tuple[str, str, Any, str, int]] = {
    "two classes": ('column = "y"\nclasses = 2', "y\n1\n0\n1.0\n", [1, 0, 1], "int64", 1),
    "three classes": ('column = "y"\nclasses = 3', "y\n2\n0\n", [2, 0], "int64", 3),
    "spelled classes, in order": ('column = "y"\nvalues = ["no", "yes"]', "y\nyes\nno\n", [1, 0], "int64", 1),
    "whole numbers as spellings": ('column = "y"\nvalues = [1, 2, 3]', "y\n3\n1\n", [2, 0], "int64", 3),
    "a number": ('task = "number"\ncolumn = "y"\nlow = 0\nhigh = 10', "y\n5\n99\n-1\n", [0, 1, -1], "float32", 1),
    "a count": ('task = "count"\ncolumn = "y"\nhigh = 20', "y\n0\n7\n99\n", [0, 7, 20], "float32", 1),
    "several labels": (
        'task = "labels"\ncolumns = ["a", "b"]',
        "a,b\nyes,0\nfalse,1\n",
        [[1, 0], [0, 1]],
        "float32",
        2,
    ),
    "several spelled labels": (
        'task = "labels"\ncolumns = ["a", "b"]\nvalues = ["neg", "pos"]',
        "a,b\npos,neg\n",
        [[1, 0]],
        "float32",
        2,
    ),
    "survival": (
        SURVIVAL,
        "days,died\n0,1\n30,1\n30.5,0\n90,yes\n90,0\n91,1\n365,1\n365,0\n366,1\n5000,0\n",
        [[0, 1], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1], [2, 1], [3, 0], [3, 0], [3, 0]],
        "int64",
        3,
    ),
}


def _with_feature(rows: str) -> str:
    header, *lines = rows.splitlines()
    return "\n".join([f"{header},x", *(f"{line},1" for line in lines)])


@pytest.mark.parametrize(("entries", "rows", "labels", "dtype", "outputs"), FORMS.values(), ids=FORMS.keys())
def test_labels_have_the_declared_form(
    data_root: Path, write_dataset: Any, entries: str, rows: str, labels: Any, dtype: str, outputs: int
) -> None:
    write_dataset(f"{BASE}[label]\n{entries}\n", _with_feature(rows))
    dataset = open_dataset(data_root, "clinic/visits")
    label = dataset.schema.label
    assert dataset.labels.tolist() == labels
    assert (dataset.labels.dtype, label.y_dtype, label.outputs) == (np.dtype(dtype), np.dtype(dtype), outputs)
    assert dataset.labels.shape == (len(dataset), *label.y_shape)


@pytest.mark.parametrize("entries", [form[0] for form in FORMS.values()], ids=FORMS.keys())
def test_synthetic_labels_have_the_form_of_real_ones(entries: str) -> None:
    schema = parse_schema(f"{BASE}[label]\n{entries}\n".encode())
    rows = synthetic_dataset(schema, 100)
    label = schema.label
    assert rows.labels.dtype == label.y_dtype
    assert rows.labels.shape == (100, *label.y_shape)
    assert len(np.unique(rows.labels, axis=0)) >= 2
    if label.task is LabelTask.SURVIVAL:
        assert set(rows.labels[:, 0].tolist()) == {0, 1, 2}
        assert set(rows.labels[:, 1].tolist()) == {0, 1}
    if label.task is LabelTask.NUMBER:
        assert np.abs(rows.labels).max() <= 1
    if label.classes is not None:
        assert set(rows.labels.tolist()) == set(range(label.classes))


BAD: dict[str, tuple[str, str, str]] = {
    "a class out of range": ('column = "y"\nclasses = 2', "y\n2\n", "not a whole number from 0 to 1"),
    "a spelling without a class": (
        'column = "y"\nvalues = ["no", "yes"]',
        "y\nmaybe\n",
        "none of the declared values: list every spelling",
    ),
    "a spelling in another case": (
        'column = "y"\nvalues = ["no", "yes"]',
        "y\nYES\n",
        "a declared spelling in other case",
    ),
    "a missing number": ('task = "number"\ncolumn = "y"\nlow = 0\nhigh = 1', "y\nNA\n", "every row needs a label"),
    "an infinite number": ('task = "number"\ncolumn = "y"\nlow = 0\nhigh = 1', "y\n1e999\n", "not a finite number"),
    "half a count": ('task = "count"\ncolumn = "y"\nhigh = 9', "y\n0.5\n", "not a whole number of at least 0"),
    "a negative count": ('task = "count"\ncolumn = "y"\nhigh = 9', "y\n-1\n", "not a whole number of at least 0"),
    "a label of many that is 2": ('task = "labels"\ncolumns = ["a", "b"]', "a,b\n1,2\n", "none of the declared values"),
    "a negative time": (SURVIVAL, "days,died\n-1,1\n", "not a time of at least 0"),
    "a missing event": (SURVIVAL, "days,died\n1,\n", "every row needs a label"),
    "an event as a number of 2": (SURVIVAL, "days,died\n1,2\n", "none of the declared values"),
}


@pytest.mark.parametrize(("entries", "rows", "words"), BAD.values(), ids=BAD.keys())
def test_a_value_that_is_no_label_is_refused(
    data_root: Path, write_dataset: Any, entries: str, rows: str, words: str
) -> None:
    write_dataset(f"{BASE}[label]\n{entries}\n", _with_feature(rows))
    with pytest.raises(DatasetSchemaRejected) as refused:
        open_dataset(data_root, "clinic/visits")
    assert words in str(refused.value)


WRONG: dict[str, tuple[str, str]] = {
    "neither classes nor values": ('column = "y"', "needs classes for task"),
    "two numbers of classes": ('column = "y"\nclasses = 3\nvalues = ["a", "b"]', "must have 3 values"),
    "one value twice": ('column = "y"\nvalues = ["a", "a"]', "once"),
    "a range of classes": ('column = "y"\nclasses = 2\nlow = 0', 'takes no low for task = "classes"'),
    "a number without a range": ('task = "number"\ncolumn = "y"\nlow = 0', "needs high"),
    "a reversed range": ('task = "number"\ncolumn = "y"\nlow = 1\nhigh = 0', "low below high"),
    "half a count as limit": ('task = "count"\ncolumn = "y"\nhigh = 1.5', "whole number of at least 1"),
    "one label of several": ('task = "labels"\ncolumns = ["a"]', "at least 2 entries"),
    "cuts out of order": (SURVIVAL.replace("30, 90", "90, 30"), "rising order"),
    "a cut at 0": (SURVIVAL.replace("30, 90", "0, 90"), "must be in (0"),
    "time and event in one column": (SURVIVAL.replace("died", "days"), "needs two columns"),
    "an unknown task": ('task = "clases"\ncolumn = "y"\nclasses = 2', "did you mean 'classes'?"),
}


@pytest.mark.parametrize(("entries", "words"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_label_is_refused_in_words(entries: str, words: str) -> None:
    with pytest.raises(DatasetRejected) as refused:
        parse_schema(f"{BASE}[label]\n{entries}\n".encode())
    assert words in str(refused.value)


@given(
    st.lists(st.tuples(st.floats(0, 1000), st.booleans()), min_size=1, max_size=30),
    st.lists(st.integers(1, 900), min_size=1, max_size=6, unique=True).map(sorted),
)
def test_survival_agrees_with_a_search_through_the_intervals(rows: list[tuple[float, bool]], cuts: list[int]) -> None:
    label = Label(task=LabelTask.SURVIVAL, column="days", event="died", cuts=tuple(cuts))
    labels = label.encode({"days": [time for time, _ in rows], "died": np.array([event for _, event in rows])})
    for (time, event), (lived, died) in zip(rows, labels.tolist(), strict=True):
        ended = [place for place, cut in enumerate(cuts) if time <= cut]
        if event and ended:
            assert (lived, died) == (ended[0], 1)
        else:
            assert (lived, died) == (sum(cut <= time for cut in cuts), 0)


def test_an_expectation_may_name_the_task_and_the_outputs() -> None:
    schema = parse_schema(f"{BASE}[label]\n{SURVIVAL}\n".encode())
    assert DatasetExpectation(task=LabelTask.SURVIVAL, outputs=3).unmet_by(schema) == ()
    unmet = DatasetExpectation(task=LabelTask.COUNT, outputs=1, classes=2).unmet_by(schema)
    assert [text.split()[0] for text in unmet] == ["classes", "task", "outputs"]
