"""A person's own earlier rows as features, against a loop over persons and rows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coreason_enclave.datasets import DatasetSchema, DatasetSchemaRejected, Derivation, open_dataset, parse_schema
from coreason_enclave.datasets.history import EarlierRows
from coreason_enclave.errors import DatasetRejected

HISTORY = """
version = 1
dataset_id = "clinic/visits"
format = "csv"
file = "rows.csv"
public = true
unit_column = "patient"
order_column = "year"
label = { column = "ill", classes = 2 }
[[features]]
name = "visits"
low = 0
high = 50
missing = 1
[[history]]
name = "visits_before"
of = "visits"
derive = "lag"
low = 0
high = 20
[[history]]
name = "years_before"
derive = "count"
low = 0
high = 10
[[history]]
name = "mean_visits"
of = "visits"
derive = "mean"
low = 0
high = 50
missing = 25
[[history]]
name = "ever_ill"
of = "ill"
derive = "share"
low = 0
high = 1
[[history]]
name = "all_visits"
of = "visits"
derive = "sum"
log = true
low = 0
high = 400
"""
SCHEMA = parse_schema(HISTORY.encode())

Row = tuple[str, float, float | None, int]
"""Person, year, visits, ill."""


def _scaled(value: float, low: float, high: float) -> float:
    return (min(max(value, low), high) - low) / (high - low) * 2 - 1


def naive(rows: list[Row]) -> list[list[float]]:
    """The five histories by a loop: for each row, the person's rows of smaller years."""
    found = []
    for person, year, _, _ in rows:
        earlier = [row for row in rows if row[0] == person and row[1] < year]
        if not earlier:
            found.append([-1.0, -1.0, 0.0, -1.0, -1.0])
            continue
        visits = [min(max(1.0 if row[2] is None else row[2], 0), 50) for row in earlier]
        latest = max(row[1] for row in earlier)
        lag = [value for value, row in zip(visits, earlier, strict=True) if row[1] == latest]
        total = math.log1p(min(sum(visits), 400))
        found.append(
            [
                _scaled(sum(lag) / len(lag), 0, 20),
                _scaled(len(earlier), 0, 10),
                _scaled(sum(visits) / len(visits), 0, 50),
                _scaled(sum(row[3] > 0 for row in earlier) / len(earlier), 0, 1),
                _scaled(total, 0, math.log1p(400)),
            ]
        )
    return found


def scaled(rows: list[Row], schema: DatasetSchema = SCHEMA) -> np.ndarray:
    person, year, visits, ill = zip(*rows, strict=True)
    columns = {
        "patient": np.array(person),
        "year": np.array(year, float),
        "visits": np.array([np.nan if value is None else value for value in visits], float),
        "ill": np.array(ill, float),
    }
    return schema.scale(columns)[:, 1:]


ROWS = st.lists(
    st.tuples(
        st.sampled_from("abcd"), st.integers(1990, 1996).map(float), st.none() | st.floats(-5, 80), st.integers(0, 1)
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=200)
@given(ROWS)
def test_histories_agree_with_a_loop_over_persons_and_rows(rows: list[Row]) -> None:
    assert np.allclose(scaled(rows), naive(rows), atol=1e-6)


@settings(max_examples=200)
@given(ROWS, ROWS)
def test_other_persons_rows_change_no_bit_of_a_persons_history(rows: list[Row], others: list[Row]) -> None:
    mine = [row for row in rows if row[0] == "a"] or [("a", 1990.0, 0.1, 1), ("a", 1991.0, 0.2, 0)]
    mixed = [*[row for row in others if row[0] != "a"], *mine, ("c", 1990.5, 49.999, 1)]
    place = [at for at, row in enumerate(mixed) if row[0] == "a"]
    assert scaled(mixed)[place].tobytes() == scaled(mine).tobytes()


@pytest.mark.parametrize("derivation", Derivation)
def test_not_even_the_rounding_of_a_sum_carries_over_to_another_person(derivation: Derivation) -> None:
    """Before scaling, in float64: float32 inputs would hide most of the rounding."""
    random = np.random.default_rng(11)
    persons = random.integers(0, 50, 2000)
    order, values = random.integers(0, 30, 2000).astype(float), random.uniform(-1e3, 1e3, 2000)
    together = EarlierRows.of(persons, order).derive(derivation, values, 1e3)
    for person in range(50):
        mine = persons == person
        alone = EarlierRows.of(persons[mine], order[mine]).derive(derivation, values[mine], 1e3)
        assert alone.tobytes() == together[mine].tobytes()


@settings(max_examples=200)
@given(st.data(), ROWS)
def test_permuting_the_file_permutes_the_histories_to_the_bit(data: st.DataObject, rows: list[Row]) -> None:
    order = data.draw(st.permutations(range(len(rows))))
    assert scaled([rows[at] for at in order]).tobytes() == scaled(rows)[list(order)].tobytes()


@given(ROWS)
def test_the_present_row_and_later_rows_do_not_count(rows: list[Row]) -> None:
    changed = [(person, year, 50.0, 1) if year == 1996.0 else (person, year, v, ill) for person, year, v, ill in rows]
    before = [at for at, row in enumerate(rows) if row[1] <= 1996.0]
    assert scaled(changed)[before].tobytes() == scaled(rows)[before].tobytes()


def test_rows_of_one_year_do_not_see_each_other() -> None:
    rows: list[Row] = [("a", 1990.0, 10.0, 1), ("a", 1990.0, 20.0, 0), ("a", 1991.0, 0.0, 0)]
    lags = scaled(rows)[:, 0].tolist()
    assert lags == [-1, -1, np.float32(15 / 20 * 2 - 1)]


def test_a_file_gives_the_histories_of_its_arrays(data_root: Path, write_dataset: Any) -> None:
    random = np.random.default_rng(3)
    rows: list[Row] = [
        (f"p{random.integers(0, 200)}", float(random.integers(1990, 2000)), float(random.uniform(0, 60)), int(ill))
        for ill in random.integers(0, 2, 3000)
    ]
    lines = "".join(f"{person},{year:.0f},{visits!r},{ill}\n" for person, year, visits, ill in rows)
    write_dataset(HISTORY, "patient,year,visits,ill\n" + lines)
    dataset = open_dataset(data_root, "clinic/visits")
    assert dataset.features[:, 1:].tobytes() == scaled(rows).tobytes()
    assert np.allclose(dataset.features[:, 1:], naive(rows), atol=1e-6)
    assert dataset.schema.input_names[1:] == ("visits_before", "years_before", "mean_visits", "ever_ill", "all_visits")


def test_rows_may_be_ordered_by_a_date(data_root: Path, write_dataset: Any) -> None:
    date = (
        '[[features]]\nname = "year"\nkind = "date"\nformat = "%d.%m.%Y"\nsince = "1990-01-01"\nlow = 0\nhigh = 9999\n'
    )
    rows = "patient,year,visits,ill\na,01.02.1991,10,1\na,31.01.1991,20,0\nb,01.01.1991,5,0\n"
    write_dataset(HISTORY.replace("[[history]]", f"{date}[[history]]", 1), rows)
    assert open_dataset(data_root, "clinic/visits").features[:, 2].tolist() == [1, -1, -1]


def test_a_row_without_its_place_in_the_order_is_refused(data_root: Path, write_dataset: Any) -> None:
    write_dataset(HISTORY, "patient,year,visits,ill\na,1990,1,1\na,,1,1\n")
    with pytest.raises(
        DatasetSchemaRejected, match=r"'year': 1 cell is \(the first in line 3\) missing or not a number"
    ):
        open_dataset(data_root, "clinic/visits")


def test_a_large_range_next_to_a_small_history_loses_no_digit() -> None:
    schema = parse_schema(HISTORY.replace("high = 50\nmissing = 1", "high = 1e15\nmissing = 1", 1).encode())
    rows: list[Row] = [("a", 1990.0, 0.125, 0), ("a", 1991.0, 0.25, 0), ("a", 1992.0, 1.0, 0)]
    assert np.allclose(scaled(rows, schema)[:, 0], [-1, 0.125 / 20 * 2 - 1, 0.25 / 20 * 2 - 1], atol=1e-7)


WRONG: dict[str, tuple[str, str, str]] = {
    "no person": ('unit_column = "patient"\n', "", "needs unit_column"),
    "no order": ('order_column = "year"\n', "", "order_column and [[history]] together"),
    "an order by the label": ('order_column = "year"', 'order_column = "ill"', "must not order"),
    "a derivation of an unknown column": (
        'of = "visits"\nderive = "lag"',
        'of = "note"\nderive = "lag"',
        "must have of",
    ),
    "a lag of nothing": ('of = "visits"\nderive = "lag"', 'derive = "lag"', "needs of"),
    "a logarithm below 0": ("log = true\nlow = 0", "log = true\nlow = -1", "low of at least 0"),
    "a stand-in out of range": ("missing = 25", "missing = 99", "must have missing within [0, 50]"),
    "two inputs of one name": ('name = "years_before"', 'name = "visits"', "a name of its own"),
    "an unknown derivation": ('derive = "sum"', 'derive = "summ"', "did you mean 'sum'?"),
}


@pytest.mark.parametrize(("old", "new", "words"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_history_is_refused_in_words(old: str, new: str, words: str) -> None:
    assert old in HISTORY
    with pytest.raises(DatasetRejected) as refused:
        parse_schema(HISTORY.replace(old, new).encode())
    assert words in str(refused.value)


def test_a_category_has_no_history() -> None:
    category = '[[features]]\nname = "ward"\nkind = "category"\ncategories = ["a"]\n[[history]]'
    document = HISTORY.replace("[[history]]", category, 1).replace(
        'of = "visits"\nderive = "lag"', 'of = "ward"\nderive = "lag"'
    )
    with pytest.raises(DatasetRejected, match="must have of"):
        parse_schema(document.encode())


def test_a_column_of_the_past_alone_is_no_input_and_gives_the_same_histories() -> None:
    seen = parse_schema(HISTORY.encode())
    past = parse_schema(HISTORY.replace("missing = 1\n", "missing = 1\ninput = false\n", 1).encode())
    columns = {"patient": ["a", "a", "b"], "year": [1.0, 2.0, 1.0], "visits": [4.0, 9.0, 2.0], "ill": [1, 0, 1]}
    assert past.input_names == seen.input_names[1:]
    assert np.array_equal(past.scale(columns), seen.scale(columns)[:, 1:])


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('of = "visits"', 'of = "ill"', r"must read 'visits' in a \[\[history\]\]"),
        ("missing = 1\n", "missing = 1\nindicator = true\n", "takes no indicator with input = false"),
    ],
)
def test_a_column_that_neither_model_nor_history_reads_is_refused(old: str, new: str, words: str) -> None:
    text = HISTORY.replace("missing = 1\n", "missing = 1\ninput = false\n", 1).replace(old, new)
    with pytest.raises(DatasetRejected, match=words):
        parse_schema(text.encode())
