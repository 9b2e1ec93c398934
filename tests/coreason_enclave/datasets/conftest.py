"""A data root with one small, correct dataset, and ways to spoil it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

TABLE_SCHEMA = """
version = 1
dataset_id = "clinic/visits"
format = "csv"
file = "rows.csv"
public = false
unit_column = "patient"
[label]
column = "visited"
classes = 2
[[features]]
name = "age"
low = 0.0
high = 100.0
why = "nobody enrolled was older"
[[features]]
name = "income"
low = -10.0
high = 10.0
missing = 0.0
"""
ROWS = "patient,age,income,visited,note\np2,50,10,1,x\np1,0,,0,y\np2,100,-5,1,z\n"

WriteDataset = Callable[..., Path]


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    root.mkdir()
    return root


@pytest.fixture
def write_dataset(data_root: Path) -> WriteDataset:
    def write(schema: str = TABLE_SCHEMA, rows: str | bytes = ROWS, *, folder: str = "clinic/visits") -> Path:
        where = data_root / folder
        where.mkdir(parents=True, exist_ok=True)
        (where / "dataset.toml").write_text(schema, encoding="utf-8")
        (where / "rows.csv").write_bytes(rows if isinstance(rows, bytes) else rows.encode())
        return where

    return write
