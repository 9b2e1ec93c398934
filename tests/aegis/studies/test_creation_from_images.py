"""A folder of images with a table of labels becomes a study: copies, split by person, declared for every site."""

from __future__ import annotations

import csv
import hashlib
import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from aegis.cli import main
from aegis.federation import FederationFolder
from aegis.studies import Study
from coreason_enclave.datasets import DataDictionary, DataFormat, DatasetSchema, declared_schema, open_dataset
from tests.support.owner_images import png, write_images

ROWS = "study/rows"
Cells = dict[str, str]


def init(folder: Path, *arguments: str | Path) -> dict[str, Any]:
    given = ["init", folder, *arguments, "--yes", "--json"]
    result = CliRunner().invoke(main, [str(each) for each in given])
    assert result.exit_code == 0, result.output
    about: dict[str, Any] = json.loads(result.stdout)
    return about


def two_sites(folder: Path) -> list[str | Path]:
    north, south = write_images(folder)
    return ["--data", north, "--data", south, "--label", "finding"]


def parts(study: Path) -> dict[str, Path]:
    sites = {path.name: path / "data" for path in sorted((study / "sites").iterdir())}
    return {**sites, "held-out": study / "held-out" / "data"}


def written(root: Path) -> list[Cells]:
    with (root / ROWS / "labels.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def schema(study: Path) -> DatasetSchema:
    return declared_schema(parts(study)["north"], ROWS)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def owned(folder: Path) -> dict[str, tuple[str, str]]:
    """Return person and finding of each of the owner's images, by the image's digest."""
    found = {}
    for site in folder.iterdir():
        with (site / "labels.csv").open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                found[digest(site / row["scan"])] = row["patient"], row["finding"]
    return found


def test_every_image_is_copied_to_one_part_with_its_own_label_and_person(tmp_path: Path) -> None:
    init(tmp_path / "study", *two_sites(tmp_path / "files"), "--person", "patient", "--holdout", "0.3")

    copied = {}
    for root in parts(tmp_path / "study").values():
        for row in written(root):
            image = root / ROWS / "pictures" / row["scan"]
            assert image.is_file()
            assert not image.is_symlink()
            assert image.stat().st_nlink == 1
            copied[digest(image)] = row["patient"], row["finding"]
        assert len(list((root / ROWS / "pictures").iterdir())) == len(written(root))
    assert copied == owned(tmp_path / "files")


def test_no_person_is_on_two_sides(tmp_path: Path) -> None:
    init(tmp_path / "study", *two_sites(tmp_path / "files"), "--person", "patient", "--holdout", "0.3")
    persons = [{row["patient"] for row in written(root)} for root in parts(tmp_path / "study").values()]
    assert all(persons)
    assert sum(map(len, persons)) == len(set().union(*persons)) == 24


def test_no_group_is_on_two_sides(tmp_path: Path) -> None:
    data = two_sites(tmp_path / "files")
    init(tmp_path / "study", *data, "--person", "patient", "--group", "family", "--holdout", "0.4")
    families = [
        {(row["patient"].split("-")[0], int(row["patient"].split("-")[1]) // 2) for row in written(root)}
        for root in parts(tmp_path / "study").values()
    ]
    assert all(families)
    assert sum(map(len, families)) == len(set().union(*families))


def test_equal_images_are_on_one_side_without_persons(tmp_path: Path) -> None:
    data = two_sites(tmp_path / "files")
    twins = [png(seed, 6, 5) for seed in range(12)]
    for site in ("north", "south"):
        for number in range(24):
            (tmp_path / "files" / site / f"{number}.png").write_bytes(twins[number // 2])
    init(tmp_path / "study", *data, "--holdout", "0.5")
    held = {digest(path) for path in (tmp_path / "study" / "held-out" / "data" / ROWS / "pictures").iterdir()}
    kept = {digest(path) for path in (tmp_path / "study" / "sites").rglob("pictures/*")}
    assert held
    assert kept
    assert not held & kept


def test_columns_without_a_role_are_not_copied(tmp_path: Path) -> None:
    data = two_sites(tmp_path / "files")
    init(tmp_path / "study", *data, "--person", "patient", "--group", "family")
    for root in parts(tmp_path / "study").values():
        assert list(written(root)[0]) == ["patient", "finding", "scan"]


def test_the_declaration_says_what_the_images_are_and_explains_itself(tmp_path: Path) -> None:
    about = init(tmp_path / "study", *two_sites(tmp_path / "files"), "--person", "patient")

    declared = schema(tmp_path / "study")
    assert declared.format is DataFormat.IMAGES
    assert declared.sample_shape == (1, 6, 5)
    assert declared.label.values == ("ill", "well")
    assert about["image"] == [1, 6, 5]
    text = (parts(tmp_path / "study")["north"] / ROWS / "dataset.toml").read_text()
    assert text.startswith("# SUGGESTED FROM ROWS")
    for entry in ("folder", "image_column", "unit_column", "low"):
        line = next(line for line in text.splitlines() if line.startswith(f"{entry} = "))
        assert "  # " in line
    shared = tomllib.loads((tmp_path / "study" / "dictionary.toml").read_text())
    assert shared["tensor"] == {"shape": [1, 6, 5], "low": 0.0, "high": 255.0}
    assert shared["image_column"] == "scan"
    assert DataDictionary.read(tmp_path / "study" / "dictionary.toml").differences(declared) == ()


def test_the_held_out_images_are_the_evaluation_set(tmp_path: Path) -> None:
    init(tmp_path / "study", *two_sites(tmp_path / "files"), "--person", "patient", "--holdout", "0.3")
    evaluation = FederationFolder(tmp_path / "study").evaluation_data()
    assert evaluation is not None
    root = parts(tmp_path / "study")["held-out"]
    features = open_dataset(root, ROWS).features
    for row, values in zip(written(root), features, strict=True):
        stored = np.asarray(Image.open(root / ROWS / "pictures" / row["scan"]), np.float64)
        np.testing.assert_allclose(values[0], stored / 127.5 - 1.0, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "model", "arguments"),
    [
        ((4, 9), "CNN", {"in_channels": 1, "height": 4, "width": 9, "outputs": 1}),
        ((4, 9, 3), "CNN", {"in_channels": 3, "height": 4, "width": 9, "outputs": 1}),
        ((3, 9), "Linear", {"in_features": 27, "outputs": 1}),
    ],
)
def test_the_model_is_a_cnn_where_one_fits(
    shape: tuple[int, ...], model: str, arguments: dict[str, int], tmp_path: Path
) -> None:
    data = two_sites(tmp_path / "files")
    for path in (tmp_path / "files").rglob("*.png"):
        path.write_bytes(png(int(path.stem), *shape))
    init(tmp_path / "study", *data)
    job = Study(tmp_path / "study").job()
    assert (job.model_arch, job.model_args) == (model, arguments)


def test_a_named_model_wins(tmp_path: Path) -> None:
    init(tmp_path / "study", *two_sites(tmp_path / "files"), "--model", "MLP")
    assert Study(tmp_path / "study").job().model_arch == "MLP"


def test_one_folder_is_split_by_the_column_of_sites(tmp_path: Path) -> None:
    (folder,) = write_images(tmp_path / "files", ("all",))
    about = init(tmp_path / "study", "--data", folder, "--site-column", "ward", "--label", "finding", "--holdout", "0")
    assert {site: counted["rows"] for site, counted in about["sites"].items()} == {
        "ward-0": 8,
        "ward-1": 8,
        "ward-2": 8,
    }


def test_images_may_lie_in_a_folder_beside_a_parquet_table(tmp_path: Path) -> None:
    import pyarrow.csv
    import pyarrow.parquet

    plain = init(tmp_path / "plain", *(data := two_sites(tmp_path / "files")), "--person", "patient")
    for site in ("north", "south"):
        folder = tmp_path / "files" / site
        pyarrow.parquet.write_table(pyarrow.csv.read_csv(folder / "labels.csv"), folder / "labels.parquet")
        (folder / "labels.csv").unlink()
        (folder / "scans").mkdir()
        for path in folder.glob("*.png"):
            path.rename(folder / "scans" / path.name)

    other = init(tmp_path / "other", *data, "--person", "patient")

    assert {**other, "study": ""} == {**plain, "study": ""}
    assert written(parts(tmp_path / "other")["north"]) == written(parts(tmp_path / "plain")["north"])


def test_held_out_images_may_be_a_folder_of_their_own(tmp_path: Path) -> None:
    north, south, east = write_images(tmp_path / "files", ("north", "south", "east"))
    about = init(tmp_path / "study", "--data", north, "--data", south, "--holdout", east, "--label", "finding")
    assert about["held_out_rows"] == 24
    assert sorted(about["sites"]) == ["north", "south"]


def test_held_out_images_of_one_name_are_both_kept(tmp_path: Path) -> None:
    init(tmp_path / "study", *two_sites(tmp_path / "files"), "--holdout", "0.7")
    names = [row["scan"] for row in written(parts(tmp_path / "study")["held-out"])]
    assert len(set(names)) == len(names) > 24, "so many that two sites' files share a name"


def test_the_column_of_file_names_can_be_named(tmp_path: Path) -> None:
    data = two_sites(tmp_path / "files")
    for site in ("north", "south"):
        table = tmp_path / "files" / site / "labels.csv"
        head, *rows = table.read_text().splitlines()
        table.write_text("\n".join([f"{head},preview", *(f"{row},none.png" for row in rows)]) + "\n")
    init(tmp_path / "study", *data, "--image-column", "scan")
    assert schema(tmp_path / "study").image_column == "scan"


def test_a_study_for_real_sites_copies_no_image(tmp_path: Path) -> None:
    data = two_sites(tmp_path / "files")
    init(tmp_path / "study", *data, "--person", "patient", "--profile", "unattested")
    assert not list((tmp_path / "study").rglob("*.png"))
    assert DataDictionary.read(tmp_path / "study" / "dictionary.toml").image_column == "scan"
    assert Study(tmp_path / "study").job().model_arch == "CNN"


@pytest.mark.parametrize(
    ("task", "header", "cells", "outputs"),
    [
        (["--task", "regression", "--label", "dose"], "dose", lambda row: f"{row}.5", 1),
        (["--task", "count", "--label", "nodes"], "nodes", lambda row: str(row % 4), 1),
        (["--task", "multilabel", "--label", "a", "--label", "b"], "a,b", lambda row: f"{row % 2},{row % 3 == 0:d}", 2),
        (["--task", "survival", "--label", "days", "--event", "died"], "days,died", lambda row: f"{row},{row % 2}", 5),
    ],
    ids=["regression", "count", "multilabel", "survival"],
)
def test_every_task_is_declared_for_images(
    task: list[str], header: str, cells: Callable[[int], str], outputs: int, tmp_path: Path
) -> None:
    data = two_sites(tmp_path / "files")[:-2]
    for site in ("north", "south"):
        rows = [f"{row}.png,p{site}{row},{cells(row)}" for row in range(24)]
        (tmp_path / "files" / site / "labels.csv").write_text("\n".join([f"scan,who,{header}", *rows]) + "\n")

    about = init(tmp_path / "study", *data, *task, "--person", "who")

    assert about["task"] == task[1]
    assert Study(tmp_path / "study").job().model_args["outputs"] == outputs
    assert list(written(parts(tmp_path / "study")["north"])[0]) == ["who", *header.split(","), "scan"]
    assert len(open_dataset(parts(tmp_path / "study")["held-out"], ROWS)) == about["held_out_rows"] > 0


@pytest.mark.parametrize("side", [6, 60], ids=["bytes", "values"])
def test_more_images_than_a_site_reads_make_no_study(
    side: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    north, south = write_images(tmp_path / "files")
    for path in (tmp_path / "files").rglob("*.png"):
        Image.new("L", (side, side)).save(path)
    size = sum(path.stat().st_size for path in north.glob("*.png"))
    values = 24 * side * side
    assert (size > values) == (side == 6), "small files are larger than their values"
    limit = max(size, values) - 1
    monkeypatch.setattr("aegis.studies.image_split.MAX_FILE_BYTES", limit)
    given = ["init", tmp_path / "study", "--data", north, "--data", south, "--label", "finding", "--yes"]
    answer = CliRunner().invoke(main, [str(each) for each in [*given, "--holdout", "0"]])
    assert answer.exit_code == 2
    assert f"error: north has more images than a site reads, {limit} bytes or decoded values" in answer.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["files"]
