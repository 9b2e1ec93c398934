"""Every example of the page on datasets is a declaration that the reader accepts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from coreason_enclave.datasets import parse_schema, synthetic_dataset

PAGE = Path(__file__).resolve().parents[2] / "docs" / "DATASETS.md"
EXAMPLES = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=[re.findall(r'dataset_id = "(.*)"', text)[0] for text in EXAMPLES])
def test_an_example_of_the_page_is_a_declaration(example: str) -> None:
    schema = parse_schema(example.encode())
    assert synthetic_dataset(schema, 8).features.shape == (8, *schema.sample_shape)


def test_the_page_shows_every_entry_of_a_declaration() -> None:
    from coreason_enclave.datasets import (
        BooleanFeature,
        CategoryFeature,
        CsvForm,
        DatasetSchema,
        DateFeature,
        Feature,
        History,
        Label,
    )

    text = PAGE.read_text(encoding="utf-8")
    models = (Feature, CategoryFeature, BooleanFeature, DateFeature, CsvForm, History, Label, DatasetSchema)
    fields = {name for model in models for name in model.model_fields}
    assert {name for name in fields if not re.search(rf"(?<![\w]){name}(?![\w])", text)} == set()


def test_the_page_quotes_refusals_as_the_tests_know_them() -> None:
    from tests.coreason_enclave.datasets.wrong_files import WRONG_FILES

    text = PAGE.read_text(encoding="utf-8")
    quoted = [
        WRONG_FILES[name].message
        for name in ("semicolons", "UTF-16", "gzip", "Excel's line sep=,", "no header", "an Excel workbook")
    ]
    assert [message for message in quoted if message not in text] == []
