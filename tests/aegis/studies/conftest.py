"""Tiny studies of one's own, one for each task: two sites, two rounds, in this process."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from aegis.studies import SplitPlan, Study, StudyOptions, create_study
from coreason_enclave.schemas import Task

SMALL = ["rounds=2", "average_last_rounds=1", "local_steps=2"]
"""Changes that make a job short."""


def write_rows(folder: Path, label: str) -> list[Path]:
    """Write the rows of two sites, 40 persons with two rows each; return the files."""
    generator = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for site in ("north", "south"):
        files.append(folder / f"{site}.csv")
        with files[-1].open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["patient", "age", "dose", "outcome"])
            for number in range(80):
                age, dose = generator.uniform(20, 80), generator.normal()
                risk = (age - 50) / 10 + dose
                outcome = {
                    "binary": int(risk > 0),
                    "multiclass": int(np.digitize(risk, [-1, 1])),
                    "regression": round(10 + 3 * risk, 3),
                    "count": int(generator.poisson(np.exp(risk / 3))),
                }[label]
                writer.writerow([f"{site}-{number // 2}", f"{age:.2f}", f"{dose:.3f}", outcome])
    return files


@pytest.fixture
def study(tmp_path: Path) -> Callable[[str], Study]:
    """Return a maker of studies by task."""

    def make(label: str = "binary") -> Study:
        files = write_rows(tmp_path / "files", label)
        split = SplitPlan(files, "outcome", "patient", None, 0.3)
        return Study(create_study(tmp_path / "study", StudyOptions("doses", split, Task(label))).folder)

    return make
