"""A study of images runs, verifies, predicts and measures folders of images as it does rows."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from aegis.cli import main
from aegis.studies import Study, evaluate_rows, load_trained, write_predictions
from coreason_enclave.datasets import open_dataset
from tests.support.owner_images import png, write_images

ROWS = "study/rows"


class Ran(NamedTuple):
    """A study with a finished run, and the owner's folder of its site north."""

    study: Study
    north: Path


def aegis(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def done(*arguments: str | Path) -> str:
    result = aegis(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("images")
    north, south = write_images(folder / "files")
    data = ["--data", north, "--data", south, "--label", "finding", "--person", "patient"]
    done("init", folder / "study", *data, "--holdout", "0.3", "--rounds", "2", "--epsilon", "9", "--yes")
    done("run", folder / "study", "--runtime", "in-process", "--no-baseline", "--set", "local_steps=1")
    return Ran(Study(folder / "study"), north)


def bare(north: Path, folder: Path) -> Path:
    """Copy the folder without labels and persons, its images apart, its column under another name."""
    (folder / "scans").mkdir(parents=True)
    for path in north.glob("*.png"):
        shutil.copy(path, folder / "scans")
    with (north / "labels.csv").open(newline="", encoding="utf-8") as file:
        names = [row["scan"] for row in csv.DictReader(file)]
    (folder / "list.csv").write_text("\n".join(["picture", *names]) + "\n")
    return folder


def test_the_run_of_a_study_of_images_verifies(ran: Ran) -> None:
    assert "VERIFIED" in done("verify", ran.study.latest)
    assert "PNG or JPEG images, grey of 8 bits a channel, 5 wide and 6 high." in (
        ran.study.latest / "model_card.md"
    ).read_text(encoding="utf-8")


def test_predictions_are_those_of_the_model_on_a_sites_arrays(ran: Ran, tmp_path: Path) -> None:
    site = ran.study.path / "sites" / "north" / "data"
    trained = load_trained(ran.study.latest)

    count = write_predictions(trained, site / ROWS, tmp_path / "out.csv")

    expected = trained.predict(open_dataset(site, ROWS).features)
    with (tmp_path / "out.csv").open(newline="") as file:
        found = [[float(row["probability:ill"]), float(row["probability:well"])] for row in csv.DictReader(file)]
    assert count == len(expected) > 0
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_images_without_labels_are_predicted_alike(ran: Ran, tmp_path: Path) -> None:
    unlabelled = bare(ran.north, tmp_path / "bare")
    done("predict", ran.study.latest, ran.north, "--out", tmp_path / "a.csv")
    done("predict", ran.study.latest, unlabelled, "--image-column", "picture", "--out", tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_images_come_in_parts(ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluate_rows(load_trained(ran.study.latest), ran.north, samples=5)
    monkeypatch.setattr("coreason_enclave.datasets.image_stream._VALUES_AT_ONCE", 6 * 5 * 7)
    parts = evaluate_rows(load_trained(ran.study.latest), ran.north, samples=5)
    np.testing.assert_allclose(parts.predicted, whole.predicted, rtol=1e-6)
    assert parts.labels.tolist() == whole.labels.tolist()


def test_evaluation_of_the_held_out_images_gives_the_utility_of_the_last_round(ran: Ran) -> None:
    held_out = ran.study.path / "held-out" / "data" / ROWS
    found = evaluate_rows(load_trained(ran.study.latest), held_out, samples=20)
    assert found.measures == pytest.approx(ran.study.run(1).read_json("outcome.json")["metrics"], abs=1e-6)
    assert found.resampled == "persons"
    assert found.groups < found.rows


def test_a_group_of_images_is_resampled_in_place_of_persons(ran: Ran) -> None:
    found = evaluate_rows(load_trained(ran.study.latest), ran.north, group="ward", samples=5)
    assert (found.groups, found.resampled) == (3, "values of 'ward'")


def _file(north: Path) -> list[str]:
    return [str(north / "labels.csv")]


def _without_table(north: Path) -> list[str]:
    (north / "labels.csv").unlink()
    return [str(north)]


def _missing(north: Path) -> list[str]:
    (north / "3.png").unlink()
    return [str(north)]


def _larger(north: Path) -> list[str]:
    (north / "3.png").write_bytes(png(0, 7, 7))
    return [str(north)]


def _other_column(north: Path) -> list[str]:
    return [str(north), "--image-column", "scans"]


def _into_the_folder(north: Path) -> list[str]:
    return [str(north), "--out", str(north / "out.csv")]


WRONG = [
    (_file, "{north}/labels.csv is a file, and the model takes images: name the folder with the images and a table"),
    (
        _without_table,
        "{north} holds no table of labels: put one CSV or Parquet file there, with the images' names",
    ),
    (_missing, "{north}/labels.csv: in row 4 below the header the named file does not exist in {north}/"),
    (
        _larger,
        "{north}/labels.csv: in row 4 below the header the image has another size than declared, 5 wide and 6 high",
    ),
    (_other_column, "labels.csv has no column 'scans': did you mean 'scan'?"),
    (_into_the_folder, "--out {north}/out.csv lies in the folder of images, as a second table: choose another place"),
]


@pytest.mark.parametrize(("change", "words"), WRONG, ids=lambda each: getattr(each, "__name__", ""))
def test_a_wrong_folder_is_one_line_and_writes_nothing(change: object, words: str, ran: Ran, tmp_path: Path) -> None:
    north = tmp_path / "north"
    shutil.copytree(ran.north, north)
    assert callable(change)
    arguments = change(north)
    out = [] if "--out" in arguments else ["--out", str(tmp_path / "out.csv")]
    before = sorted(tmp_path.rglob("*"))

    answer = aegis("predict", ran.study.latest, *arguments, *out)

    assert (answer.exit_code, answer.stderr.strip()) == (2, "error: " + words.format(north=north))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_handwritten_digits_are_learned_from_image_files(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    data, sites = load_digits(), ("north", "south", "east")
    for number, site in enumerate(sites):
        (tmp_path / site).mkdir()
        lines = ["file,writer,digit"]
        for row in range(len(data.images)):
            if row // 3 % 3 == number:  # three images a writer, each writer at one site
                Image.fromarray((data.images[row] * 15.9).astype(np.uint8)).save(tmp_path / site / f"{row}.png")
                lines.append(f"{row}.png,w{row // 3},{data.target[row]}")
        (tmp_path / site / "labels.csv").write_text("\n".join(lines) + "\n")
    study, folders = tmp_path / "study", [part for site in sites for part in ("--data", tmp_path / site)]

    done("init", study, *folders, "--label", "digit", "--person", "writer", "--rounds", "12", "--yes")
    outcome = json.loads(done("run", study, "--runtime", "in-process", "--no-baseline", "--json"))
    measured = json.loads(done("evaluate", study / "runs" / "latest", tmp_path / "east", "--json"))
    done("predict", study / "runs" / "latest", tmp_path / "east", "--out", tmp_path / "digits.csv")

    assert "VERIFIED" in done("verify", study / "runs" / "latest")
    assert outcome["measures"]["accuracy"]["value"] > 0.75
    assert measured["measures"]["accuracy"]["value"] > 0.75
    with (tmp_path / "digits.csv").open(newline="") as file:
        chosen = np.array([list(map(float, row[1:])) for row in list(csv.reader(file))[1:]]).argmax(axis=1)
    truth = [int(line.rsplit(",", 1)[1]) for line in (tmp_path / "east" / "labels.csv").read_text().split()[1:]]
    assert np.mean(chosen == truth) == pytest.approx(measured["measures"]["accuracy"]["value"])
