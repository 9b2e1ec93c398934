"""A large file is read in memory of the size of its arrays and a few batches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROWS = 400_000
NOTE = "a text column that the dataset does not declare " * 8

PROGRAM = """
import resource, sys
from pathlib import Path
import pyarrow.compute, pyarrow.csv
from coreason_enclave.datasets import open_dataset
from coreason_enclave.datasets import DatasetSchema
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
dataset = open_dataset(Path(sys.argv[1]), "large")
arrays = dataset.features.nbytes + dataset.labels.nbytes + dataset.unit_ids.nbytes
print(len(dataset), peak() - before, arrays)
"""


@pytest.fixture
def large(tmp_path: Path) -> Path:
    folder = tmp_path / "large"
    folder.mkdir()
    (folder / "dataset.toml").write_text(
        'version = 1\ndataset_id = "large"\nformat = "csv"\nfile = "rows.csv"\npublic = false\nunit_column = "p"\n'
        'label = { column = "y", classes = 2 }\nfeatures = [{ name = "x", low = 0, high = 100 }]\n'
    )
    with (folder / "rows.csv").open("w") as file:
        file.write("p,x,y,note\n")
        file.writelines(f"{n % 50_000},{n % 97}.5,{n % 2},{NOTE}\n" for n in range(ROWS))
    return tmp_path


@pytest.mark.slow
def test_a_large_table_is_read_in_a_fraction_of_its_size(large: Path) -> None:
    size = (large / "large" / "rows.csv").stat().st_size
    assert size > 150e6
    ran = subprocess.run([sys.executable, "-c", PROGRAM, str(large)], capture_output=True, text=True, check=True)
    rows, used, arrays = map(int, ran.stdout.split())
    assert rows == ROWS
    # Whole, the file alone would take its size; its cells as Python objects several times as much.
    assert used < arrays + 100e6, f"{used / 1e6:.0f} MB for {arrays / 1e6:.0f} MB of arrays"
