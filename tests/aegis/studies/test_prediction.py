"""Predictions and measures of a run's model on rows of one's own."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from aegis.studies import Study, evaluate_rows, load_trained, write_predictions
from aegis.studies.prediction import observed_survival
from coreason_enclave.datasets import RowStream, open_dataset
from coreason_enclave.datasets.dictionary import DataDictionary
from coreason_enclave.datasets.schema import parse_schema
from coreason_enclave.errors import DatasetRejected
from tests.aegis.conftest import ran_study


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_predictions_of_rows_without_label_are_those_of_the_model_on_a_sites_arrays(small_study: Study) -> None:
    folder = small_study.path / "sites" / "north" / "data"
    rows = folder / "study" / "rows" / "rows.csv"
    without = small_study.path.parent / "bare.csv"
    without.write_text("".join(f"{line.rsplit(',', 1)[0]}\n" for line in rows.read_text().splitlines()))
    trained, out = load_trained(small_study.latest), small_study.path.parent / "out.csv"

    count = write_predictions(trained, without, out)

    expected = trained.predict(open_dataset(folder, "study/rows").features)
    found = _read(out)
    assert count == len(expected) == len(found)
    assert [int(row["row"]) for row in found] == list(range(1, count + 1))
    both = [[float(row["probability:0"]), float(row["probability:1"])] for row in found]
    np.testing.assert_allclose(both, expected, rtol=1e-8)


def test_form_of_the_file_does_not_change_predictions(small_study: Study) -> None:
    root, trained = small_study.path.parent, load_trained(small_study.latest)
    plain = root / "north.csv"
    (root / "other.csv.gz").write_bytes(gzip.compress(plain.read_text().replace(",", ";").encode("utf-16")))
    write_predictions(trained, plain, root / "a.csv")
    write_predictions(trained, root / "other.csv.gz", root / "b.csv")
    assert (root / "a.csv").read_bytes() == (root / "b.csv").read_bytes()


def test_evaluation_of_the_held_out_rows_gives_the_utility_of_the_last_round(small_study: Study) -> None:
    held_out = small_study.path / "held-out" / "data" / "study" / "rows" / "rows.csv"
    found = evaluate_rows(load_trained(small_study.latest), held_out, samples=50)
    assert found.measures == pytest.approx(small_study.run(1).read_json("outcome.json")["metrics"], abs=1e-6)
    assert found.resampled == "persons"
    assert found.groups < found.rows
    assert all(low <= found.measures[name] <= high for name, (low, high) in found.bounds.items())
    shares = np.bincount(found.labels) / found.rows
    assert found.baseline["accuracy"] == pytest.approx(shares.max())
    assert json.loads(json.dumps(found.document()))["measures"]["accuracy"]["low"] == found.bounds["accuracy"][0]


def test_group_is_resampled_in_place_of_persons(small_study: Study) -> None:
    found = evaluate_rows(
        load_trained(small_study.latest), small_study.path.parent / "north.csv", group="site", samples=9
    )
    assert (found.groups, found.resampled) == (2, "values of 'site'")


def test_regression_is_predicted_and_measured_in_the_labels_own_unit(tmp_path: Path) -> None:
    study = ran_study(tmp_path, "risk")
    trained, rows = load_trained(study.latest), tmp_path / "north.csv"
    write_predictions(trained, rows, tmp_path / "out.csv")
    predicted = np.array([float(row["predicted:risk"]) for row in _read(tmp_path / "out.csv")])
    truth = np.array([float(row["risk"]) for row in _read(rows)])
    found = evaluate_rows(trained, rows, samples=20)
    assert found.measures["mae"] == pytest.approx(np.abs(predicted - truth).mean(), rel=1e-4)
    assert found.baseline["mae"] == pytest.approx(np.abs(truth - truth.mean()).mean(), rel=1e-4)
    assert found.baseline["r2"] == pytest.approx(0, abs=1e-6)


def test_observed_survival_is_that_of_kaplan_and_meier() -> None:
    # 4 at risk, 1 dies; 3 at risk, 1 dies; one is censored before the third interval, 1 lives through all.
    labels = np.array([[0, 1], [1, 1], [2, 0], [3, 0]])
    assert observed_survival(labels, 3).tolist() == pytest.approx([0.75, 0.5, 0.5])


_HISTORY = b"""
version = 1
dataset_id = "d"
format = "csv"
file = "rows.csv"
public = true
unit_column = "who"
order_column = "year"
label = { column = "sick", classes = 2 }
features = [{ name = "age", low = 0, high = 100 }]
[[history]]
name = "before"
of = "sick"
derive = "sum"
low = 0
high = 4
"""


def test_last_row_of_a_person_may_lack_the_label_that_a_history_reads(tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("who,year,age,sick\na,3,40,\nb,1,50,0\na,1,38,1\na,2,39,1\nb,2,51,\n")
    dictionary = DataDictionary.of(parse_schema(_HISTORY))
    parts = list(RowStream(rows, dictionary, labelled=False))
    assert parts[0].features[:, 1].tolist() == pytest.approx([0.0, -1.0, -1.0, -0.5, -1.0])

    rows.write_text("who,year,age,sick\na,3,40,\na,1,38,\na,2,39,1\n")
    with pytest.raises(DatasetRejected, match="only a person's last"):
        list(RowStream(rows, dictionary, labelled=False))


def test_rows_of_a_large_file_come_in_parts(tmp_path: Path) -> None:
    document = _HISTORY.decode().partition("[[history]]")[0].replace('order_column = "year"', "").encode()
    rows = tmp_path / "rows.csv"
    rows.write_text("who,age,sick\n" + "".join(f"p{n},{n % 100},{n % 2}\n" for n in range(200_000)))
    parts = list(RowStream(rows, DataDictionary.of(parse_schema(document)), labelled=False))
    assert len(parts) > 1
    assert sum(len(part.features) for part in parts) == 200_000
    assert [part.first for part in parts] == np.cumsum([0, *(len(part.features) for part in parts[:-1])]).tolist()
