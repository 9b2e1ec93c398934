"""A declaration suggested from rows always reads these rows, and says what it took from them."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from coreason_enclave.datasets import ColumnSummary, LabelTask, open_dataset, suggest
from coreason_enclave.datasets.suggestion import form_of, rounded_out
from coreason_enclave.errors import DatasetRejected

numbers = st.one_of(st.integers(-(10**9), 10**9).map(str), st.floats(-1e9, 1e9, width=32).map(lambda x: f"{x:.6g}"))
words = st.text(st.characters(codec="ascii", categories=["Ll", "Lu"]), min_size=1, max_size=6)
days = st.dates().filter(lambda day: day.year > 1900).map(lambda day: day.isoformat())
columns = st.lists(
    st.tuples(st.sampled_from([numbers, words, days, st.sampled_from(["yes", "no"])]), st.booleans()),
    min_size=1,
    max_size=4,
)


def summaries(table: list[dict[str, str]]) -> list[ColumnSummary]:
    found = [ColumnSummary(name) for name in table[0]]
    for row in table:
        for column in found:
            column.take(row[column.name])
    return found


@settings(max_examples=60, deadline=None)
@given(data=st.data(), kinds=columns, count=st.integers(4, 30))
def test_every_suggestion_reads_its_own_rows(
    data: st.DataObject, kinds: list[tuple[st.SearchStrategy[str], bool]], count: int
) -> None:
    table = [
        {
            **{
                f"c{number}": data.draw(st.one_of(st.just(""), kind) if may_miss else kind)
                for number, (kind, may_miss) in enumerate(kinds)
            },
            "label": str(row % 2),
        }
        for row in range(count)
    ]
    try:
        suggestion = suggest(summaries(table), label="label", person=None)
    except DatasetRejected:  # no column is left to learn from
        return

    document = {
        "version": 1,
        "dataset_id": "rows",
        "format": "csv",
        "file": "rows.csv",
        "public": True,
        "label": dict(suggestion.label),
        "features": [dict(feature) for feature in suggestion.features],
    }
    file = io.StringIO()
    writer = csv.DictWriter(file, list(table[0]))
    writer.writeheader()
    writer.writerows(table)
    with TemporaryDirectory() as root:
        folder = Path(root) / "rows"
        folder.mkdir()
        (folder / "dataset.toml").write_text(tomli_w.dumps(document))
        (folder / "rows.csv").write_text(file.getvalue())
        dataset = open_dataset(Path(root), "rows")

    assert len(dataset) == count
    assert abs(dataset.features).max() <= 1
    assert set(suggestion.remarks) == {feature["name"] for feature in suggestion.features} | {"label"}


@given(st.floats(-1e12, 1e12), st.floats(0, 1e9))
def test_a_rounded_range_contains_the_range(low: float, width: float) -> None:
    outer_low, outer_high = rounded_out(low, low + width)

    assert outer_low <= low
    assert low + width <= outer_high
    assert outer_low < outer_high


def test_what_the_owner_states_replaces_the_suggestion_and_says_so() -> None:
    table = [{"age": str(20 + n), "dose": str(n), "label": str(n % 2)} for n in range(30)]
    suggestion = suggest(summaries(table), label="label", person=None)

    stated = suggestion.stating("age", 0, 120).leaving_out("dose")

    assert [(f["name"], f["low"], f["high"]) for f in stated.features] == [("age", 0, 120)]
    assert stated.remarks["age"] == "stated by the owner"
    assert stated.left_out == {"dose": "left out by the owner"}
    with pytest.raises(DatasetRejected, match="last feature"):
        stated.leaving_out("age")
    with pytest.raises(DatasetRejected, match="low below high"):
        stated.stating("age", 5, 5)


FORMS = {
    "semicolons and decimal commas": ("age;sick\n1,5;0\n2,5;1\n", {"delimiter": ";", "decimal": ","}),
    "tabs": ("age\tsick\n1.5\t0\n", {"delimiter": "\t"}),
    "a line for Excel": ("sep=;\nage;sick\n1;0\n", {"delimiter": ";", "skip_rows": 1}),
    "a title above": ("Export of May\nage,sick\n1,0\n", {"skip_rows": 1}),
    "spaces around names": ("age , sick\n1,0\n", {"trim": True}),
}


@pytest.mark.parametrize("name", FORMS)
def test_the_form_of_a_file_is_found(name: str, tmp_path: Path) -> None:
    text, expected = FORMS[name]
    (tmp_path / "rows.csv").write_text(text)

    form = form_of(tmp_path / "rows.csv", ["age", "sick"]).model_dump(exclude_defaults=True)

    assert {key: form.get(key) for key in expected} == expected


def test_a_file_in_another_encoding_is_found(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes("größe,krank\n1,0\n".encode("utf-16"))

    assert form_of(tmp_path / "rows.csv", ["größe", "krank"]).encoding.startswith("utf-16")


def test_a_survival_label_gets_five_equal_intervals_unless_stated() -> None:
    table = [{"age": str(20 + n), "days": str(10 * n), "died": str(n % 2)} for n in range(11)]

    found = suggest(summaries(table), label="days", person=None, task=LabelTask.SURVIVAL, also=["died"])
    stated = suggest(summaries(table), label="days", person=None, task=LabelTask.SURVIVAL, also=["died"], cuts=[30, 60])

    assert found.label["cuts"] == [20.0, 40.0, 60.0, 80.0, 100.0]
    assert stated.label["cuts"] == [30.0, 60.0]


def left_out(cells: list[str]) -> str:
    table = [{"age": str(n), "size": cell, "label": str(n % 2)} for n, cell in enumerate(cells)]
    return suggest(summaries(table), label="label", person=None).left_out["size"]


@pytest.mark.parametrize("unit", ["mm", "%", "mg/dL", "°C", "m2"])
@pytest.mark.parametrize("space", ["", " "])
def test_a_column_with_a_unit_is_left_out_and_its_unit_named(unit: str, space: str) -> None:
    why = left_out([f"{n + 20}.57{space}{unit}" for n in range(25)] + ["30.1", "none of it"])

    assert why == (
        f"cells like '20.57{space}{unit}' are text: remove the unit '{unit}' from each cell, "
        'or declare the column with kind = "category"'
    )


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (
            [f"{n}.5" for n in range(25)] + ["<0.1", "<0.2"],
            "cells like '<0.1' are text among numbers: mend these cells",
        ),
        ([f"Smith {n}" for n in range(25)], "cells like 'Smith 0' are text, more than 20 different ones: name groups"),
        (
            [f"{n} mm" for n in range(12)] + [f"{n} cm" for n in range(13)],
            "cells like '0 mm' are text: bring the units 'cm', 'mm' to one, and remove it from each cell, or",
        ),
        (["x" * 90 + str(n) for n in range(25)], f"cells like '{'x' * 30}…' are text"),
        ([f"2020-01-{n:02}" for n in range(1, 25)] + ["5"], "cells like '2020-01-01' are text"),
    ],
)
def test_other_text_is_left_out_with_one_of_its_cells(cells: list[str], words: str) -> None:
    assert left_out(cells).startswith(words)


def test_a_label_with_a_unit_is_refused_and_its_unit_named() -> None:
    table = [{"age": str(n), "label": f"{n}.5 mm"} for n in range(25)]

    for task in (None, LabelTask.NUMBER):
        with pytest.raises(DatasetRejected, match=r"\(remove the unit 'mm' from each cell\)$"):
            suggest(summaries(table), label="label", person=None, task=task)
