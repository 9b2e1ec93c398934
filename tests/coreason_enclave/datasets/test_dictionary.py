"""The data dictionary of a study, and the differences of a site's declaration from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomli_w

from coreason_enclave.datasets import DataDictionary, DatasetSchema, parse_schema
from coreason_enclave.errors import DatasetRejected

DECLARATION: dict[str, Any] = {
    "version": 1,
    "dataset_id": "clinic/visits",
    "format": "csv",
    "file": "rows.csv",
    "public": False,
    "unit_column": "patient",
    "order_column": "year",
    "label": {"column": "visited", "classes": 2},
    "features": [
        {"name": "age", "low": 0.0, "high": 100.0, "why": "years of life"},
        {"name": "sex", "kind": "category", "categories": ["f", "m"]},
    ],
    "history": [{"name": "visits before", "of": "visited", "derive": "lag", "low": 0, "high": 1}],
}


def declared(**changes: Any) -> DatasetSchema:
    document = {name: value for name, value in {**DECLARATION, **changes}.items() if value is not None}
    return parse_schema(tomli_w.dumps(document).encode())


def test_a_dictionary_is_read_back_as_written(tmp_path: Path) -> None:
    dictionary = DataDictionary.of(declared())
    path = tmp_path / "dictionary.toml"
    path.write_text(dictionary.write())

    assert DataDictionary.read(path) == dictionary
    assert dictionary.declaration(file="rows.csv", public=False) == declared()


def test_a_site_may_differ_in_its_file_its_persons_column_and_its_remarks() -> None:
    features = [{**DECLARATION["features"][0], "why": "another remark"}, DECLARATION["features"][1]]
    here = declared(file="north.csv", public=True, unit_column="mrn", csv={"delimiter": ";"}, features=features)

    assert DataDictionary.of(declared()).differences(here) == ()


IMAGES: dict[str, Any] = {
    **{name: DECLARATION[name] for name in ("version", "dataset_id", "public", "unit_column")},
    "format": "images",
    "file": "labels.csv",
    "folder": "pictures",
    "image_column": "scan",
    "label": {"column": "finding", "values": ["well", "ill"]},
    "tensor": {"shape": [1, 4, 6], "low": 0, "high": 255},
}


def images(**changes: Any) -> DatasetSchema:
    return parse_schema(tomli_w.dumps({**IMAGES, **changes}).encode())


@pytest.mark.parametrize("resize", ["refuse", "stretch"])
def test_a_dictionary_of_images_is_read_back_as_written(resize: str, tmp_path: Path) -> None:
    dictionary = DataDictionary.of(images(resize=resize))
    path = tmp_path / "dictionary.toml"
    path.write_text(dictionary.write())

    assert DataDictionary.read(path) == dictionary
    assert dictionary.declaration(file=dictionary.usual_file, public=False) == images(resize=resize)


def test_a_site_may_name_its_images_otherwise_and_may_not_stretch_them_alone() -> None:
    dictionary = DataDictionary.of(images())
    elsewhere = images(folder="scans", image_column="file", file="all.parquet", unit_column="mrn")
    assert dictionary.differences(elsewhere) == ()
    assert dictionary.differences(images(resize="stretch")) == ("resize is 'stretch', the dictionary says 'refuse'",)


def test_a_dictionary_of_rows_says_nothing_about_images() -> None:
    text = DataDictionary.of(declared()).write()
    assert "image_column" not in text
    assert "resize" not in text


AGE, SEX = DECLARATION["features"]
DIFFERENCES: dict[str, tuple[dict[str, Any], str]] = {
    "another bound": (
        {"features": [{**AGE, "high": 90.0}, SEX]},
        "feature 'age': high is 90.0, the dictionary says 100.0",
    ),
    "another kind": (
        {"features": [AGE, {"name": "sex", "low": 0, "high": 1}]},
        "feature 'sex': kind is 'number', the dictionary says 'category'",
    ),
    "another order of categories": (
        {"features": [AGE, {**SEX, "categories": ["m", "f"]}]},
        "feature 'sex': categories is ['m', 'f'], the dictionary says ['f', 'm']",
    ),
    "a column less": ({"features": [AGE]}, "feature 'sex' is missing"),
    "a column more": (
        {"features": [AGE, SEX, {"name": "height", "low": 0, "high": 3}]},
        "feature 'height' is not in the dictionary",
    ),
    "another order of columns": (
        {"features": [SEX, AGE]},
        "the order of feature entries differs: the dictionary has age, sex",
    ),
    "another label": (
        {"label": {"column": "visited", "classes": 3}},
        "label: classes is 3, the dictionary says 2",
    ),
    "no persons": (
        {"unit_column": None, "order_column": None, "history": None},
        "the unit of privacy is one record, the dictionary says one person",
    ),
    "another derivation": (
        {"history": [{**DECLARATION["history"][0], "derive": "mean"}]},
        "history 'visits before': derive is 'mean', the dictionary says 'lag'",
    ),
    "another dataset": ({"dataset_id": "clinic/other"}, "dataset_id is 'clinic/other', the dictionary says"),
}


@pytest.mark.parametrize("case", DIFFERENCES)
def test_a_difference_is_named_with_both_values(case: str) -> None:
    changes, words = DIFFERENCES[case]

    lines = DataDictionary.of(declared()).differences(declared(**changes))

    assert any(line.startswith(words) for line in lines), lines


WRONG: dict[str, tuple[str, str]] = {
    "no text": ("version = ", "dictionary.toml"),
    "an unknown entry": ('version = 1\nfile = "rows.csv"', "file"),
    "no label": ('version = 1\ndataset_id = "x"\nunit = "record"', "label"),
    "no features": (
        'version = 1\ndataset_id = "x"\nunit = "record"\nlabel = { column = "y", classes = 2 }',
        "needs [[features]]",
    ),
    "a unit of coordinators": (
        'version = 1\ndataset_id = "x"\nunit = "client"\nlabel = { column = "y", classes = 2 }\nfeatures = []',
        "unit",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_unusable_dictionary_is_refused_in_words(case: str, tmp_path: Path) -> None:
    text, words = WRONG[case]
    path = tmp_path / "dictionary.toml"
    path.write_text(text)

    with pytest.raises(DatasetRejected, match="dictionary") as refused:
        DataDictionary.read(path)

    assert words in str(refused.value)


def test_a_missing_dictionary_is_refused_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(DatasetRejected, match=r"dictionary\.toml"):
        DataDictionary.read(tmp_path / "dictionary.toml")
