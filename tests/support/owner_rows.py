"""Rows of tiny studies of one's own, one kind of label each."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np


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
