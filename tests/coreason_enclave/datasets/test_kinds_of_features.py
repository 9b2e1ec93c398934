"""Categories, booleans, dates and numbers, against hand calculations and an independent reader."""

from __future__ import annotations

import datetime
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coreason_enclave.datasets import (
    BooleanFeature,
    CategoryFeature,
    DatasetSchemaRejected,
    DateFeature,
    Feature,
    check_dataset,
    open_dataset,
    parse_schema,
)
from coreason_enclave.errors import DatasetRejected

BASE = """
version = 1
dataset_id = "clinic/visits"
format = "csv"
file = "rows.csv"
public = true
label = { column = "y", classes = 2 }
"""

Read = Callable[..., list[Any]]


@pytest.fixture
def read(data_root: Path, write_dataset: Any) -> Read:
    """Read one feature, declared by ``entries``, from cells of the column ``x``."""

    def inputs(entries: str, *cells: str, more: str = "") -> list[Any]:
        rows = "".join(f'"{cell}",0\n' for cell in cells)
        write_dataset(f'{BASE}{more}\n[[features]]\nname = "x"\n{entries}\n', f"x,y\n{rows}")
        return open_dataset(data_root, "clinic/visits").features.tolist()  # type: ignore[no-any-return]

    return inputs


def test_a_category_becomes_one_input_for_each_declared_spelling_and_one_for_others(read: Read) -> None:
    entries = 'kind = "category"\ncategories = ["b", "a"]'
    assert read(entries, "a", "b", "z") == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]


def test_an_unknown_category_is_refused_where_others_are_not_accepted(read: Read) -> None:
    with pytest.raises(DatasetSchemaRejected, match=r"1 cell is \(the first in line 3\) in none of its categories"):
        read('kind = "category"\ncategories = ["a", "b"]\nother = false', "a", "z")


@pytest.mark.parametrize("cell", ["A", " a", "ａ"])
def test_a_careless_spelling_of_a_category_is_no_other_category(read: Read, cell: str) -> None:
    with pytest.raises(DatasetSchemaRejected, match="a declared spelling in other case, or with spaces"):
        read('kind = "category"\ncategories = ["a", "b"]', "a", cell)


@pytest.mark.parametrize(
    ("missing", "expected"),
    [('missing = "other"', [0, 0, 1]), ('missing = "b"', [0, 1, 0]), ('missing = "b"\nindicator = true', [0, 1, 0, 1])],
)
def test_a_missing_category_takes_the_declared_one(read: Read, missing: str, expected: list[float]) -> None:
    assert read(f'kind = "category"\ncategories = ["a", "b"]\n{missing}', "NA") == [expected]


def test_a_missing_category_is_refused_by_default(read: Read) -> None:
    with pytest.raises(DatasetSchemaRejected, match="missing, which the schema does not allow"):
        read('kind = "category"\ncategories = ["a", "b"]', "a", "")


def test_a_declared_category_is_never_a_missing_cell(read: Read) -> None:
    assert read('kind = "category"\ncategories = ["none", "mild"]\nother = false', "none", "mild") == [[1, 0], [0, 1]]


def test_whole_numbers_serve_as_categories(read: Read) -> None:
    assert read('kind = "category"\ncategories = [3, 1]\nother = false', "1", "3") == [[0, 1], [1, 0]]


def test_booleans_become_one_and_minus_one(read: Read) -> None:
    assert read('kind = "boolean"', "yes", "No", "TRUE", "f", "1", "0") == [[1], [-1], [1], [-1], [1], [-1]]
    assert read('kind = "boolean"\ntrue = ["m"]\nfalse = ["w"]', "M", "w") == [[1], [-1]]


def test_a_missing_boolean_takes_the_declared_one_with_its_indicator(read: Read) -> None:
    assert read('kind = "boolean"\nmissing = false\nindicator = true', "yes", "") == [[1, 0], [-1, 1]]


def test_an_unknown_boolean_is_refused(read: Read) -> None:
    with pytest.raises(DatasetSchemaRejected, match="neither true nor false"):
        read('kind = "boolean"', "perhaps")


def test_an_indicator_is_one_where_the_cell_was_missing(read: Read) -> None:
    assert read("low = 0\nhigh = 10\nmissing = 5\nindicator = true", "10", "", "0") == [[1, 0], [0, 1], [-1, 0]]


def test_a_standard_scale_clips_first_and_uses_the_declared_numbers(read: Read) -> None:
    entries = 'low = 0\nhigh = 100\nscale = "standard"\nmean = 40\ndeviation = 20\nmissing = 40'
    assert read(entries, "60", "1000", "-5", "") == [[1], [3], [-2], [0]]


def test_a_date_becomes_days_or_years_since_a_declared_day(read: Read) -> None:
    days = 'kind = "date"\nformat = "%d.%m.%Y"\nsince = "1980-01-01"\nlow = 0\nhigh = 100\nunit = "days"'
    assert read(days, "01.01.1980", "20.02.1980", "01.01.1999", "31.12.1979") == [[-1], [0], [1], [-1]]
    years = 'kind = "date"\nformat = "%Y-%m-%d"\nsince = 1980-01-01\nlow = 0\nhigh = 8\nunit = "years"'
    after = (datetime.date(1984, 1, 1) - datetime.date(1980, 1, 1)).days / 365.25
    assert read(years, "1984-01-01")[0][0] == pytest.approx(after / 8 * 2 - 1)


def test_a_date_may_count_from_the_date_in_another_column(data_root: Path, write_dataset: Any) -> None:
    entries = 'kind = "date"\nformat = "%Y-%m-%d"\nsince_column = "born"\nlow = 0\nhigh = 20\nmissing = 10'
    rows = "seen,born,y\n2000-01-21,2000-01-01,0\n2000-01-01,,1\n2000-01-06,2000-01-01,1\n"
    write_dataset(f'{BASE}[[features]]\nname = "seen"\n{entries}\n', rows)
    assert open_dataset(data_root, "clinic/visits").features.tolist() == [[1], [0], [-0.5]]


def test_a_date_in_another_format_is_refused_with_the_format_that_holds(read: Read) -> None:
    entries = 'kind = "date"\nformat = "%Y-%m-%d"\nsince = "1980-01-01"\nlow = 0\nhigh = 1'
    with pytest.raises(DatasetSchemaRejected) as refused:
        read(entries, "1980-12-24", "24.12.1980")
    assert str(refused.value.problems[0]) == (
        "column 'x': 1 cell is (the first in line 3) no date written as %Y-%m-%d: "
        "write `format = \"%d.%m.%Y\"` in [[features]] 'x' of dataset.toml"
    )


def test_declared_signs_of_numbers_are_read_as_python_reads_plain_ones(read: Read) -> None:
    more = '[csv]\ndecimal = ","\nthousands = "."\n'
    cells = ["1.234,5", "0,5", "-2.000.000", "1e1", "7"]
    plain = [1234.5, 0.5, -2e6, 10.0, 7.0]
    expected = [[np.float32((value + 3e6) / 6e6 * 2 - 1)] for value in plain]
    entries = "low = -3e6\nhigh = 3e6"
    assert read(entries, *cells, more=more) == expected


def test_a_thousands_sign_in_a_wrong_place_is_no_number(read: Read) -> None:
    for cell in ("12.34", "1.2345", ".123", "1..000"):
        with pytest.raises(DatasetSchemaRejected, match="not a finite number"):
            read("low = 0\nhigh = 1e6", cell, more='[csv]\ndecimal = ","\nthousands = "."\n')


def test_declared_missing_spellings_replace_the_usual_ones(read: Read) -> None:
    entries, more = "low = -10\nhigh = 10\nmissing = 0", '[csv]\nmissing = ["-9", "."]\n'
    assert read(entries, "-9", ".", "10", more=more) == [[0], [0], [1]]
    with pytest.raises(DatasetSchemaRejected):
        read(entries, "NA", more=more)


@settings(max_examples=60)
@given(
    st.lists(
        st.floats(-1e6, 1e6).map(repr)
        | st.integers(-(10**6), 10**6).map(str)
        | st.sampled_from(["", "NA", "+.5", "7.", "1E2"]),
        min_size=1,
        max_size=30,
    )
)
def test_numbers_agree_with_pandas(tmp_path_factory: pytest.TempPathFactory, cells: list[str]) -> None:
    root = tmp_path_factory.mktemp("data")
    (root / "d").mkdir()
    data = "x,y\n" + "".join(f"{cell},1\n" for cell in cells)
    (root / "d" / "r.csv").write_text(data)
    (root / "d" / "dataset.toml").write_text(
        BASE.replace("clinic/visits", "d").replace("rows.csv", "r.csv")
        + 'features = [{ name = "x", low = -1e6, high = 1e6, missing = 0 }]'
    )
    frame = pd.read_csv(io.StringIO(data), skip_blank_lines=False, dtype=str)
    expected = (frame["x"].astype(float).fillna(0).to_numpy() + 1e6) / 2e6 * 2 - 1
    assert np.array_equal(open_dataset(root, "d").features[:, 0], expected.astype(np.float32))


VALUES = st.lists(st.none() | st.sampled_from(["a", "b", "c", "unknown"]), min_size=1, max_size=20)


@given(VALUES, st.booleans(), st.sampled_from(["other", "a", "c"]))
def test_one_hot_inputs_have_a_single_one_in_the_right_place(
    values: list[str | None], indicator: bool, missing: str
) -> None:
    feature = CategoryFeature(
        kind="category", name="x", categories=("a", "b", "c"), missing=missing, indicator=indicator
    )
    inputs = feature.encode(feature.values_of({"x": np.array(values, dtype=object)}))
    assert inputs.shape == (len(values), len(feature.inputs))
    assert np.array_equal(inputs[:, :4].sum(axis=1), np.ones(len(values)))
    for row, value in zip(inputs, values, strict=True):
        wanted = missing if value is None else value if value in "abc" else "other"
        assert feature.inputs[int(row[:4].argmax())] == f"x={wanted}"
        if indicator:
            assert row[4] == (value is None)


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=False), min_size=1, max_size=20),
    st.floats(-1e6, 1e6),
    st.floats(1e-3, 1e6),
    st.floats(0, 1),
    st.booleans(),
)
def test_scaled_numbers_stay_within_one_and_the_indicator_marks_missing_ones(
    values: list[float], low: float, width: float, place: float, indicator: bool
) -> None:
    high = low + width
    missing = min(high, low + place * width)
    feature = Feature(name="x", low=low, high=high, missing=missing, indicator=indicator)
    inputs = feature.encode(np.array(values))
    assert np.all(np.abs(inputs) <= 1)
    if indicator:
        assert np.array_equal(inputs[:, 1] == 1.0, np.isnan(values))
    alone = feature.encode(np.array([missing]))[0, 0]
    assert np.all(inputs[np.isnan(values), 0] == alone)


@given(st.lists(st.none() | st.booleans(), min_size=1, max_size=20))
def test_booleans_are_one_minus_one_or_the_stand_in(values: list[bool | None]) -> None:
    feature = BooleanFeature(kind="boolean", name="x", missing=True)
    inputs = feature.encode(feature.values_of({"x": np.array(values, dtype=object)}))
    assert inputs[:, 0].tolist() == [-1.0 if value is False else 1.0 for value in values]


@given(st.lists(st.dates(datetime.date(1900, 1, 1), datetime.date(2100, 1, 1)), min_size=1, max_size=20))
def test_dates_count_days_as_the_standard_library_does(dates: list[datetime.date]) -> None:
    feature = DateFeature(
        kind="date", name="x", format="%d.%m.%Y", since=datetime.date(2000, 1, 1), low=-40_000, high=40_000
    )
    days = feature.values_of({"x": [date.strftime("%d.%m.%Y") for date in dates]})
    assert days.tolist() == [(date - datetime.date(2000, 1, 1)).days for date in dates]
    assert np.array_equal(days, feature.values_of({"x": np.array(dates, "datetime64[D]")}))


WRONG = {
    "no categories": ('kind = "category"', "categories is required"),
    "a range of a category": ('kind = "category"\ncategories = ["a"]\nlow = 0', "low is not a known field"),
    "a category twice": ('kind = "category"\ncategories = ["a", "a"]', "once"),
    "other as a category and as a place": ('kind = "category"\ncategories = ["other"]', "must not list"),
    "a stand-in that is no category": ('kind = "category"\ncategories = ["a"]\nmissing = "c"', "must have missing"),
    "an indicator without a stand-in": ("low = 0\nhigh = 1\nindicator = true", "needs a stand-in"),
    "a spelling that is true and false": ('kind = "boolean"\ntrue = ["1"]\nfalse = ["1"]', "once"),
    "a year of two digits": (
        'kind = "date"\nformat = "%d.%m.%y"\nsince = "1980-01-01"\nlow = 0\nhigh = 1',
        "four digits",
    ),
    "a date without its day": (
        'kind = "date"\nformat = "%Y-%m"\nsince = "1980-01-01"\nlow = 0\nhigh = 1',
        "must name day",
    ),
    "a date without a beginning": ('kind = "date"\nformat = "%Y-%m-%d"\nlow = 0\nhigh = 1', "needs one of since"),
    "standard without numbers": ('low = 0\nhigh = 1\nscale = "standard"', "needs mean and deviation"),
    "numbers without standard": ("low = 0\nhigh = 1\nmean = 0.5", 'needs scale = "standard"'),
    "a deviation that drowns the rest": (
        'low = 0\nhigh = 1\nscale = "standard"\nmean = 0\ndeviation = 1e-9',
        "within 10000 deviations",
    ),
    "an unknown kind": ('kind = "text"', "must be of a known kind: 'number', 'category', 'boolean', 'date'"),
    "a stand-in as text": ('low = 0\nhigh = 1\nmissing = "mean"', 'must be "refuse" or a number'),
}


@pytest.mark.parametrize(("entries", "words"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_feature_is_refused_by_name_in_words(entries: str, words: str) -> None:
    with pytest.raises(DatasetRejected) as refused:
        parse_schema(f'{BASE}[[features]]\nname = "x"\n{entries}\n'.encode())
    text = str(refused.value)
    assert words in text
    assert "features 'x'" in text
    assert [jargon for jargon in ("literal", "constrained", "Input should", "type=") if jargon in text] == []


def test_inputs_are_named_in_the_order_of_the_arrays() -> None:
    schema = parse_schema(
        f"""{BASE}
[[features]]
name = "age"
low = 0
high = 1
missing = 0
indicator = true
[[features]]
name = "site"
kind = "category"
categories = ["a"]
""".encode()
    )
    assert schema.input_names == ("age", "age missing", "site=a", "site=other")
    assert schema.sample_shape == (4,)


def test_a_column_of_another_unit_is_read_and_the_site_is_told(data_root: Path, write_dataset: Any) -> None:
    rows = "x,y\n" + "".join(f"{n * 100 + 300},0\n" for n in range(30))
    write_dataset(f'{BASE}[[features]]\nname = "x"\nlow = 0\nhigh = 100\n', rows)
    dataset = open_dataset(data_root, "clinic/visits")
    assert dataset.features.min() == 1.0
    words = "column 'x': 30 of 30 values lie outside [0, 100] and are clipped: is the range in the column's own unit?"
    assert dataset.warnings == (words,)
    assert check_dataset(data_root, "clinic/visits") == (words,)
    assert words not in repr(dataset)


def test_a_column_within_its_range_raises_no_warning(data_root: Path, write_dataset: Any) -> None:
    rows = "x,y\n" + "".join(f"{n * 10},0\n" for n in range(30))
    write_dataset(f'{BASE}[[features]]\nname = "x"\nlow = 0\nhigh = 100\n', rows)
    assert open_dataset(data_root, "clinic/visits").warnings == ()


def test_a_list_of_categories_that_fits_no_cell_raises_a_warning(data_root: Path, write_dataset: Any) -> None:
    rows = "x,y\n" + "".join(f"berlin-{n},0\n" for n in range(25))
    write_dataset(f'{BASE}[[features]]\nname = "x"\nkind = "category"\ncategories = ["paris"]\n', rows)
    (words,) = open_dataset(data_root, "clinic/visits").warnings
    assert words == "column 'x': 25 of 25 cells are outside its declared categories"
