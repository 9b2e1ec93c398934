"""``dataset init`` drafts from every format and for every label what ``check`` and ``register`` then take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from coreason_enclave.datasets import SUGGESTED, DatasetSchema, declared_schema, open_dataset
from coreason_enclave.main import main
from coreason_enclave.policy import load_site_config
from tests.conftest import SmallSite

NEW = "clinic/new"
REGISTER = ("--nominal-units", 100, "--epsilon", 6, "--delta", 1e-5, "--job-epsilon", 3, "--job-delta", 1e-5)
ROWS = 60


@pytest.fixture
def small(federation: Any) -> SmallSite:
    """A site that may hold private rows."""
    site: SmallSite = federation.create(profile="unattested", attester="unattested", lineage={"public": False})
    return site


def run(site: SmallSite, *arguments: object) -> Result:
    return CliRunner().invoke(main, ["dataset", *map(str, arguments), "--config", str(site.folder)])


def accepted(site: SmallSite, file: Path, *more: object) -> DatasetSchema:
    """Draft, check, accept every mark and register, as a site does; return the declaration."""
    result = run(site, "init", file, "--dataset-id", NEW, *more)
    assert result.exit_code == 0, result.output
    declaration = site.folder / "data" / NEW / "dataset.toml"
    check = run(site, "check", NEW)
    assert check.exit_code == 0, check.output
    text = declaration.read_text()
    if SUGGESTED in text:
        refused = run(site, "register", NEW, *REGISTER)
        assert (refused.exit_code, "suggested from rows" in refused.output) == (2, True)
    declaration.write_text(text.replace(f"# {SUGGESTED}", ""))
    registered = run(site, "register", NEW, *REGISTER)
    assert registered.exit_code == 0, registered.output
    assert load_site_config(site.folder / "site.toml").lineage_of(NEW).public is False
    shown = json.loads(run(site, "show", NEW, "--json").output)
    assert shown["budget"]["dataset_id"] == NEW
    return declared_schema(site.folder / "data", NEW)


def marked(site: SmallSite) -> set[str]:
    lines = (site.folder / "data" / NEW / "dataset.toml").read_text().splitlines()
    return {line.split(" =")[0] for line in lines if SUGGESTED in line}


def table(**more: Any) -> pa.Table:
    random = np.random.default_rng(3)
    return pa.table(
        {
            "patient": [f"p{row // 2}" for row in range(ROWS)],
            "age": random.integers(20, 90, ROWS),
            "pressure": random.uniform(90, 180, ROWS),
            "ward": pa.array(["north", "south", "east"] * (ROWS // 3)).dictionary_encode(),
            "smoker": random.uniform(size=ROWS) < 0.5,
            "seen": pa.array([1_600_000_000 + 7 * row * 86_400 for row in range(ROWS)], pa.timestamp("s")),
            "visited": pa.array(np.arange(ROWS) % 2),
            **more,
        }
    )


def csv(path: Path, **columns: Any) -> Path:
    random = np.random.default_rng(5)
    cells = {"patient": [f"p{row}" for row in range(ROWS)], "age": random.integers(20, 90, ROWS), **columns}
    lines = [",".join(cells), *(",".join(map(str, row)) for row in zip(*cells.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n")
    return path


def arrays(path: Path, y: Any, **more: Any) -> Path:
    x = np.random.default_rng(7).normal(size=(len(y), 2, 3)).astype(np.float32)
    np.savez_compressed(path, **{"x": x, "y": y, **more})
    return path


def pictures(folder: Path, *, sizes: tuple[tuple[int, int], ...] = ((6, 4),), mode: str = "L") -> Path:
    (folder / "scans").mkdir(parents=True)
    lines = ["scan,patient,ill"]
    for row in range(12):
        size = sizes[row % len(sizes)]
        Image.effect_noise(size, 60 + row).convert(mode).save(folder / "scans" / f"{row}.png")
        lines.append(f"{row}.png,p{row // 2},{row % 2}")
    (folder / "scans" / "not-named.txt").write_text("stays where it is")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder / "labels.csv"


def test_parquet_of_every_type_is_drafted_read_and_registered(small: SmallSite, tmp_path: Path) -> None:
    pq.write_table(table(notes=pa.array([[1, 2]] * ROWS), scan=[b"\1"] * ROWS), tmp_path / "export.parquet")
    schema = accepted(small, tmp_path / "export.parquet", "--label", "visited", "--person", "patient")
    kinds = {feature.name: getattr(feature, "kind", "") for feature in schema.features}
    assert kinds == {"age": "number", "pressure": "number", "ward": "category", "smoker": "boolean", "seen": "date"}
    assert (schema.format, schema.file, schema.unit_column) == ("parquet", "rows.parquet", "patient")
    assert (small.folder / "data" / NEW / "rows.parquet").read_bytes() == (tmp_path / "export.parquet").read_bytes()


def test_everything_that_the_rows_decided_is_marked(small: SmallSite, tmp_path: Path) -> None:
    pq.write_table(table(), tmp_path / "export.parquet")
    result = run(small, "init", tmp_path / "export.parquet", "--dataset-id", NEW, "--label", "visited")
    assert result.exit_code == 0
    assert "left out 'patient': holds more than 20 different words" in result.output
    assert marked(small) == {"classes", "low", "high", "categories", "true", "false", "since"}


def test_parquet_and_csv_of_the_same_rows_make_the_same_draft(small: SmallSite, tmp_path: Path) -> None:
    import pyarrow.csv

    rows = table().drop_columns(["seen"])
    rows = rows.set_column(3, "ward", rows["ward"].cast(pa.string()))
    pq.write_table(rows, tmp_path / "a.parquet")
    pyarrow.csv.write_csv(rows, tmp_path / "a.csv")
    documents = []
    for number, name in enumerate(("a.parquet", "a.csv")):
        dataset = f"clinic/form-{number}"
        assert run(small, "init", tmp_path / name, "--dataset-id", dataset, "--label", "visited").exit_code == 0
        schema = declared_schema(small.folder / "data", dataset)
        documents.append((schema.label, schema.features))
    assert documents[0] == documents[1]


@pytest.mark.parametrize(
    ("y", "options", "task"),
    [
        (np.arange(12) % 3, (), "classes"),
        (np.arange(12) % 2, ("--label", "y", "--task", "binary"), "classes"),
        (np.linspace(-1, 1, 12), (), "number"),
        (np.arange(12.0), ("--task", "count"), "count"),
        (np.arange(24).reshape(12, 2) % 2, ("--task", "multilabel", "--label", "ill", "--label", "back"), "labels"),
        (np.stack([np.arange(12) % 2, np.ones(12, int)], 1), ("--task", "survival", "--cuts", "30,90"), "survival"),
    ],
)
def test_arrays_of_every_label_are_drafted(small: SmallSite, tmp_path: Path, y: Any, options: Any, task: str) -> None:
    schema = accepted(small, arrays(tmp_path / "a.npz", y, unit=np.arange(12) // 2), *options)
    assert (schema.format, schema.label.task, schema.sample_shape) == ("npz", task, (2, 3))
    assert schema.unit == "person"


def test_bytes_have_the_range_of_their_type_and_no_mark(small: SmallSite, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.full((4, 8, 8), 7, np.uint8), y=np.arange(4) % 2)
    result = run(small, "init", tmp_path / "a.npz", "--dataset-id", NEW)
    assert result.exit_code == 0, result.output
    assert marked(small) == {"classes"}
    tensor = declared_schema(small.folder / "data", NEW).tensor
    assert tensor is not None
    assert (tensor.low, tensor.high) == (0, 255)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_folder_of_images_is_drafted_with_its_named_files_alone(small: SmallSite, tmp_path: Path, mode: str) -> None:
    labels = pictures(tmp_path / "export", mode=mode)
    options = ("--images", tmp_path / "export/scans", "--image-column", "scan", "--label", "ill", "--person", "patient")
    schema = accepted(small, labels, *options)
    assert (schema.format, schema.folder, schema.image_column) == ("images", "images", "scan")
    assert schema.sample_shape == (1 if mode == "L" else 3, 4, 6)
    assert len(list((small.folder / "data" / NEW / "images").iterdir())) == 12


def test_images_of_several_sizes_need_a_size_to_stretch_to(small: SmallSite, tmp_path: Path) -> None:
    labels = pictures(tmp_path / "export", sizes=((6, 4), (8, 8)))
    options = ("--images", tmp_path / "export/scans", "--image-column", "scan", "--label", "ill")
    refused = run(small, "init", labels, "--dataset-id", NEW, *options)
    assert (refused.exit_code, "line 3" in refused.output, "--stretch" in refused.output) == (2, True, True)
    schema = accepted(small, labels, *options, "--stretch", "5,7")
    assert (schema.resize, schema.sample_shape) == ("stretch", (1, 5, 7))


def test_rows_that_lie_in_their_place_are_declared_there(small: SmallSite) -> None:
    place = small.folder / "data" / NEW
    labels = pictures(place)
    options = ("--images", place / "scans", "--image-column", "scan", "--label", "ill")
    schema = accepted(small, labels, *options)
    assert (schema.file, schema.folder) == ("labels.csv", "scans")
    assert not (place / "images").exists()
    assert len(open_dataset(small.folder / "data", NEW)) == 12
