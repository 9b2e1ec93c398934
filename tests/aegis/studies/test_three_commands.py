"""init, run, verify: the three commands on public data sets of four kinds, on both runtimes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from aegis.cli import main

EPSILON, ROUNDS = "3", "8"
Rows = Sequence[Sequence[Any]]


def aegis(*arguments: str | Path) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def write(folder: Path, names: Sequence[str], rows: Rows, sites: Sequence[str]) -> list[Path]:
    files = []
    for number, site in enumerate(sites):
        files.append(folder / f"{site}.csv")
        with files[-1].open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(names)
            writer.writerows(rows[number :: len(sites)])
    return files


def diabetes(folder: Path) -> tuple[list[Path], list[str]]:
    from sklearn.datasets import load_diabetes

    data = load_diabetes(scaled=False)
    rows = np.column_stack([data.data, data.target]).tolist()
    files = write(folder, [*data.feature_names, "progression"], rows, ["north", "south", "east"])
    return files, ["--label", "progression"]


def breast_cancer(folder: Path) -> tuple[list[Path], list[str]]:
    """An invented patient column, a categorical column, and 5 % of the cells missing."""
    from sklearn.datasets import load_breast_cancer

    data, random = load_breast_cancer(), np.random.default_rng(0)
    names = [name.replace(" ", "_") for name in data.feature_names]
    rows = [
        [f"p{number // 2}", *("" if random.random() < 0.05 else f"{cell:.5g}" for cell in cells),
         random.choice(["low", "mid", "high"]), int(benign == 0)]
        for number, (cells, benign) in enumerate(zip(data.data, data.target, strict=True))
    ]  # fmt: skip
    files = write(folder, ["patient_id", *names, "grade", "malignant"], rows, ["north", "south", "east"])
    return files, ["--label", "malignant", "--person", "patient_id"]


def digits(folder: Path) -> tuple[list[Path], list[str]]:
    from sklearn.datasets import load_digits

    data, files = load_digits(), []
    for number, site in enumerate(["north", "south", "east"]):
        files.append(folder / f"{site}.npz")
        np.savez(files[-1], x=data.images[number::3].astype(np.float32), y=data.target[number::3])
    return files, ["--label", "y"]


def heart(folder: Path) -> tuple[list[Path], list[str]]:
    from statsmodels.datasets import heart as transplants

    data = transplants.load_pandas().data
    rows = [[age, days, int(died)] for days, died, age in data.to_numpy()]
    files = write(folder, ["age", "days", "died"], rows, ["north", "south"])
    return files, ["--label", "days", "--task", "survival", "--event", "died", "--epsilon", "30"]


def is_above(measure: str, least: float) -> Callable[[dict[str, Any], Path], None]:
    def check(outcome: dict[str, Any], study: Path) -> None:
        assert outcome["measures"][measure]["value"] > least, outcome["measures"]

    return check


def agrees_with_cox(outcome: dict[str, Any], study: Path) -> None:
    """The hazard grows with age, as in statsmodels' proportional hazards model of the same rows."""
    from statsmodels.datasets import heart as transplants
    from statsmodels.duration.hazard_regression import PHReg

    data = transplants.load_pandas().data.to_numpy()
    cox = PHReg(data[:, 0], data[:, 2:3], status=data[:, 1]).fit()
    ages = study.parent / "ages.csv"
    ages.write_text("age\n30\n60\n")
    aegis("predict", study / "runs" / "latest", ages, "--out", study.parent / "chances.csv")
    young, old = np.loadtxt(study.parent / "chances.csv", delimiter=",", skiprows=1)[:, 1]
    assert cox.params[0] > 0
    assert young > old


STUDIES: dict[str, tuple[Callable[[Path], tuple[list[Path], list[str]]], Callable[[dict[str, Any], Path], None]]] = {
    "diabetes": (diabetes, is_above("r2", 0.1)),
    "breast cancer": (breast_cancer, is_above("auc", 0.9)),
    "digits": (digits, is_above("accuracy", 0.8)),
    "heart transplants": (heart, agrees_with_cox),
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("runtime", ["flower", "nvflare"])
@pytest.mark.parametrize("name", STUDIES)
def test_three_commands_lead_from_files_to_a_verified_run(name: str, runtime: str, tmp_path: Path) -> None:
    write_files, check = STUDIES[name]
    files, options = write_files(tmp_path)
    study = tmp_path / "study"
    data = [part for file in files for part in ("--data", file)]

    aegis("init", study, *data, *options, "--rounds", ROUNDS, "--yes")
    outcome = json.loads(aegis("run", study, "--runtime", runtime, "--no-baseline", "--json"))

    assert "VERIFIED" in aegis("verify", study / "runs" / "latest")
    check(outcome, study)


def test_three_commands_work_in_one_process_too(tmp_path: Path) -> None:
    files, options = breast_cancer(tmp_path)
    data = [part for file in files for part in ("--data", file)]

    aegis("init", tmp_path / "study", *data, *options, "--rounds", "4", "--yes")
    outcome = json.loads(aegis("run", tmp_path / "study", "--runtime", "in-process", "--no-baseline", "--json"))

    assert "VERIFIED" in aegis("verify", tmp_path / "study" / "runs" / "latest")
    is_above("auc", 0.85)(outcome, tmp_path / "study")
