"""``dataset init`` drafts from every format and for every label what ``check`` and ``register`` then take."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from coreason_enclave.datasets import SUGGESTED, DataDictionary, DatasetSchema, declared_schema, open_dataset
from coreason_enclave.main import main
from coreason_enclave.policy import load_site_config
from tests.conftest import SmallFederation, SmallSite

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
    assert "left out 'patient': cells like " in result.output
    entries = {entry for entry in marked(small) if not entry.startswith("# left out: 'patient'")}
    assert entries == {"classes", "low", "high", "categories", "true", "false", "since"}


def test_a_column_of_parquet_with_spaces_around_cells_is_left_out_and_csv_is_trimmed(
    small: SmallSite, tmp_path: Path
) -> None:
    padded = [f"{word} " if row % 5 else word for row, word in enumerate(["a", "b"] * (ROWS // 2))]
    pq.write_table(table(hand=padded), tmp_path / "a.parquet")
    asked = ("--dataset-id", "clinic/first", "--label")
    result = run(small, "init", tmp_path / "a.parquet", *asked, "visited")
    assert (result.exit_code, "left out 'hand': has cells with spaces" in result.output) == (0, True)
    refused = run(small, "init", tmp_path / "a.parquet", "--dataset-id", "clinic/second", "--label", "hand")
    assert (refused.exit_code, "the label 'hand' has cells with spaces" in refused.output) == (2, True)
    schema = accepted(small, csv(tmp_path / "a.csv", hand=padded, ill=YES), "--label", "ill", "--person", "patient")
    assert [feature.name for feature in schema.features] == ["age", "hand"]


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


YES = [row % 2 for row in range(ROWS)]


@pytest.mark.parametrize(
    ("columns", "options", "task", "left_marked"),
    [
        ({"ill": YES}, ("--label", "ill", "--task", "binary"), "classes", {"classes"}),
        ({"stage": ["a", "b", "c"] * 20}, ("--label", "stage", "--task", "multiclass"), "classes", {"values"}),
        ({"ill": YES, "back": YES}, ("--label", "ill", "--label", "back", "--task", "multilabel"), "labels", set()),
        ({"dose": [row / 7 for row in range(ROWS)]}, ("--label", "dose"), "number", {"low", "high"}),
        ({"dose": YES}, ("--label", "dose", "--task", "regression", "--low", "0", "--high", "9"), "number", set()),
        ({"dose": YES}, ("--label", "dose", "--task", "regression", "--high", "9"), "number", {"low"}),
        ({"visits": range(ROWS)}, ("--label", "visits", "--task", "count"), "count", {"high"}),
        ({"visits": range(ROWS)}, ("--label", "visits", "--task", "count", "--high", "80"), "count", set()),
        (
            {"days": range(ROWS), "died": YES},
            ("--label", "days", "--event", "died", "--task", "survival", "--cuts", "10,30,60"),
            "survival",
            set(),
        ),
        (
            {"days": range(ROWS), "died": YES},
            ("--label", "days", "--event", "died", "--task", "survival"),
            "survival",
            {"cuts"},
        ),
    ],
)
def test_every_kind_of_label_is_drafted_and_marked_unless_stated(
    small: SmallSite, tmp_path: Path, columns: Any, options: Any, task: str, left_marked: set[str]
) -> None:
    file = csv(tmp_path / "visits.csv", **columns)
    assert run(small, "init", file, "--dataset-id", "clinic/first", *options).exit_code == 0
    text = (small.folder / "data/clinic/first/dataset.toml").read_text()
    of_label = text.partition("[label]")[2].partition("[[features]]")[0]
    assert {line.split(" =")[0] for line in of_label.splitlines() if SUGGESTED in line} == left_marked
    assert accepted(small, file, *options, "--person", "patient").label.task == task


def test_a_file_without_names_and_with_its_own_word_for_missing_cells(small: SmallSite, tmp_path: Path) -> None:
    lines = [f"p{row};{-9 if row == 5 else row},5; {'ja' if row % 2 else 'nein'}" for row in range(ROWS)]
    (tmp_path / "visits.txt").write_text("\n".join(lines) + "\n")
    options = ("--no-header", "--columns", "who,dose,ill", "--missing", "-9,5", "--label", "ill", "--person", "who")
    schema = accepted(small, tmp_path / "visits.txt", *options)
    (dose,) = schema.features
    assert (dose.name, dose.may_miss, schema.csv_form.trim, schema.label.values) == ("dose", True, True, ("ja", "nein"))
    assert schema.input_names == ("dose", "dose missing")


def test_a_dictionary_declares_parquet_and_arrays(small: SmallSite, tmp_path: Path) -> None:
    pq.write_table(table(), tmp_path / "a.parquet")
    for number, file in enumerate((tmp_path / "a.parquet", arrays(tmp_path / "a.npz", np.arange(12) % 2))):
        dataset = f"clinic/form-{number}"
        options = ("--label", "visited") if file.suffix == ".parquet" else ()
        assert run(small, "init", file, "--dataset-id", dataset, *options).exit_code == 0
        first = declared_schema(small.folder / "data", dataset).model_copy(update={"dataset_id": NEW})
        dictionary = tmp_path / f"{number}.toml"
        dictionary.write_text(DataDictionary.of(first).write())
        schema = accepted(small, file, "--dictionary", dictionary)
        assert DataDictionary.of(schema) == DataDictionary.of(first)
        forget(small)


def test_a_dictionary_of_images_declares_another_site_s_images(small: SmallSite, tmp_path: Path) -> None:
    first, second = pictures(tmp_path / "a"), pictures(tmp_path / "b", sizes=((9, 9),))
    said = ("--images", tmp_path / "a/scans", "--image-column", "scan", "--person", "patient")
    assert run(small, "init", first, "--dataset-id", "clinic/first", *said, *LABEL).exit_code == 0
    declared = declared_schema(small.folder / "data", "clinic/first").model_copy(update={"dataset_id": NEW})
    dictionary = tmp_path / "dictionary.toml"
    dictionary.write_text(DataDictionary.of(declared).write())
    options = ("--images", tmp_path / "b/scans", *said[2:], "--dictionary", dictionary)
    for further, words in (
        ((), "names an image of shape (1, 9, 9), and the dictionary says (1, 4, 6)"),
        (("--stretch", "4,6"), "leave --stretch out"),
    ):
        refused = run(small, "init", second, "--dataset-id", NEW, *options, *further)
        assert (refused.exit_code, words in refused.output) == (2, True), refused.output
    dictionary.write_text(DataDictionary.of(declared.model_copy(update={"resize": "stretch"})).write())
    schema = accepted(small, second, *options)
    assert DataDictionary.of(schema) == DataDictionary.read(dictionary)
    assert run(small, "check", NEW, "--dictionary", dictionary).exit_code == 0
    table_of_rows = csv(tmp_path / "rows.csv", ill=YES)
    refused = run(small, "init", table_of_rows, "--dataset-id", "clinic/third", "--dictionary", dictionary)
    assert (refused.exit_code, "the dictionary declares images: say --images FOLDER" in refused.output) == (2, True)


def forget(site: SmallSite) -> None:
    """Undo a registration."""
    shutil.rmtree(site.folder / "data" / NEW)
    path = site.folder / "site.toml"
    path.write_text("[[lineages]]".join(path.read_text().split("[[lineages]]")[:-1]))


LABEL = ("--label", "ill")
IMAGES = ("--images", "p/scans", "--image-column", "scan", *LABEL)


def make_wrong_inputs(folder: Path) -> None:
    """Write one file of every unusable kind."""
    csv(folder / "rows.csv", ill=YES, visits=range(ROWS))
    (folder / "empty.csv").write_bytes(b"")
    (folder / "blank.csv").write_text("\n \n")
    (folder / "header.csv").write_text("patient,age,ill\n")
    (folder / "ragged.csv").write_text("age,ill\n1,0\n2\n")
    (folder / "twice.csv").write_text("age,age,ill\n1,2,0\n")
    (folder / "noise.bin").write_bytes(bytes(range(256)) * 8)
    with zipfile.ZipFile(folder / "book.xlsx", "w") as book:
        book.writestr("[Content_Types].xml", "<Types/>")
    (folder / "data.pkl").write_bytes(b"\x80\x04K\x01.")
    pq.write_table(pa.table({"age": [1, 2], "ill": [0, 1], "all": [[1], [2]]}), folder / "rows.parquet")
    (folder / "cut.parquet").write_bytes((folder / "rows.parquet").read_bytes()[:-40])
    pq.write_table(
        pa.table({"age": pa.array([], pa.int64()), "ill": pa.array([], pa.int64())}), folder / "none.parquet"
    )
    x, y = np.ones((4, 2), np.float32), np.arange(4) % 2
    for name, members in {
        "no-y": {"x": x},
        "more": {"x": x, "y": y, "z": y},
        "short": {"x": x, "y": y[:2]},
        "flat": {"x": y, "y": y},
        "words": {"x": x, "y": np.array(list("abab"))},
        "nan": {"x": x * np.nan, "y": y},
        "unit": {"x": x, "y": y, "unit": x[:, 0]},
        "float": {"x": x, "y": y / 1},
    }.items():
        np.savez(folder / f"{name}.npz", **members)
    (folder / "cut.npz").write_bytes((folder / "short.npz").read_bytes()[:300])
    np.savez(folder / "pickle.npz", x=np.array([{}, {}], dtype=object), y=y[:2])
    pictures(folder / "p")
    labels = (folder / "p" / "labels.csv").read_text()
    for name, (old, new) in {
        "absent": ("5.png", "55.png"),
        "path": ("5.png", "../5.png"),
        "again": ("5.png", "4.png"),
        "kind": ("5.png", "not-named.txt"),
    }.items():
        (folder / "p" / f"{name}.csv").write_text(labels.replace(old, new))


@pytest.mark.parametrize(
    ("file", "options", "words"),
    [
        ("rows.csv", ("--label", "il"), "has no column 'il': did you mean 'ill'?"),
        ("rows.csv", (*LABEL, "--person", "Pateint"), "has no column 'Pateint': did you mean 'patient'?"),
        ("rows.csv", (), "--label is missing"),
        ("rows.csv", (*LABEL, "--label", "visits"), "several --label go with --task multilabel"),
        ("rows.csv", (*LABEL, "--person", "ill"), "--label and --person both name the column 'ill'"),
        ("rows.csv", (*LABEL, "--event", "age"), "--event and --cuts go with --task survival"),
        ("rows.csv", (*LABEL, "--task", "survival"), "survival label needs two columns"),
        ("rows.csv", ("--label", "age", "--event", "ill", "--task", "survival", "--cuts", "9,3"), "must increase"),
        ("rows.csv", ("--label", "age", "--event", "ill", "--task", "survival", "--cuts", "1,nan"), "must increase"),
        ("rows.csv", ("--label", "age", "--event", "visits", "--task", "survival"), "has to be yes or no"),
        ("rows.csv", (*LABEL, "--task", "multiclass"), "has 2 classes, and --task says multiclass"),
        ("rows.csv", (*LABEL, "--high", "3"), "--low and --high go with --task regression"),
        ("rows.csv", ("--label", "visits", "--task", "regression", "--low", "99"), "needs --low below --high"),
        ("rows.csv", (*LABEL, "--label", "visits", "--task", "multilabel"), "'visits' is not of yes and no"),
        ("rows.csv", (*LABEL, "--task", "multilabel"), "several labels need several columns"),
        ("rows.csv", (*LABEL, "--no-header"), "--no-header and --columns go together"),
        ("rows.csv", (*LABEL, "--images", "p/scans"), "--images and --image-column go together"),
        ("empty.csv", LABEL, "empty.csv is empty"),
        ("blank.csv", LABEL, "blank.csv is empty"),
        ("header.csv", LABEL, "header.csv has no rows"),
        ("ragged.csv", LABEL, "line 3: not as many cells"),
        ("twice.csv", LABEL, "names the column 'age' twice"),
        ("noise.bin", LABEL, "noise.bin is not text"),
        ("book.xlsx", LABEL, "an Excel workbook (xlsx): save it as CSV"),
        ("data.pkl", LABEL, "a Python pickle"),
        ("rows.parquet", ("--label", "ile"), "has no column 'ile': did you mean 'ill'?"),
        ("rows.parquet", ("--label", "all"), "a cell must hold one value"),
        ("rows.parquet", (*LABEL, "--missing", "-9"), "marks its missing cells"),
        ("cut.parquet", LABEL, "is not whole Parquet"),
        ("none.parquet", LABEL, "none.parquet has no rows"),
        ("no-y.npz", (), "has no array 'y': it has x"),
        ("more.npz", (), "has a further array 'z'"),
        ("short.npz", (), "the same number of examples"),
        ("flat.npz", (), "x needs a shape"),
        ("words.npz", (), "y holds no numbers"),
        ("nan.npz", (), "x holds values that are not finite"),
        ("unit.npz", (), "unit needs one whole number"),
        ("float.npz", ("--task", "binary"), "no list of classes"),
        ("float.npz", ("--task", "survival"), "--cuts is missing"),
        ("float.npz", LABEL, "say --label y"),
        ("float.npz", ("--person", "unit"), "no array 'unit'"),
        ("float.npz", IMAGES, "leave --images out"),
        ("cut.npz", (), "is no whole npz archive"),
        ("pickle.npz", (), "x holds no numbers"),
        ("p/absent.csv", IMAGES, "line 7 (in scans/): the row names an image that is missing"),
        ("p/path.csv", IMAGES, "line 7 (in scans/): the row names no plain file"),
        ("p/again.csv", IMAGES, "line 7 (in scans/): the row names the same image as line 6"),
        ("p/kind.csv", IMAGES, "the file is neither PNG nor JPEG"),
        ("p/labels.csv", (*IMAGES, "--stretch", "5"), "--stretch takes a height and a width"),
        ("p/labels.csv", (*IMAGES[:3], "scans", *LABEL), "has no column 'scans': did you mean 'scan'?"),
        ("p/none.csv", LABEL, "does not exist"),
    ],
)
def test_a_wrong_input_ends_in_one_line_and_writes_nothing(
    wrong: tuple[SmallSite, Path], monkeypatch: pytest.MonkeyPatch, file: str, options: Any, words: str
) -> None:
    site, folder = wrong
    monkeypatch.chdir(folder)
    before = sorted(site.folder.rglob("*"))
    result = run(site, "init", folder / file, "--dataset-id", NEW, *options)
    assert (result.exit_code, words in result.output) == (2, True), result.output
    assert result.output.count("\n") == 1
    assert sorted(site.folder.rglob("*")) == before


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> tuple[SmallSite, Path]:
    """A site, and a folder of unusable files, for tests that change neither."""
    folder = tmp_path_factory.mktemp("wrong")
    make_wrong_inputs(folder)
    return SmallFederation(tmp_path_factory.mktemp("site")).create(), folder


def test_a_copy_that_fails_leaves_nothing(small: SmallSite, tmp_path: Path) -> None:
    file = csv(tmp_path / "visits.csv", ill=YES)
    place = small.folder / "data" / NEW
    place.mkdir(parents=True)
    (place / "rows.csv").write_text("an older export\n")
    result = run(small, "init", file, "--dataset-id", NEW, *LABEL)
    assert (result.exit_code, "rows.csv: File exists" in result.output) == (2, True), result.output
    assert [path.name for path in place.iterdir()] == ["rows.csv"]
    assert (place / "rows.csv").read_text() == "an older export\n"


def test_a_copy_that_fails_half_way_is_undone(small: SmallSite, tmp_path: Path) -> None:
    labels = pictures(tmp_path / "export")
    place = small.folder / "data" / NEW
    (place / "images").mkdir(parents=True)
    (place / "images" / "5.png").write_text("an older export\n")
    options = ("--images", tmp_path / "export/scans", "--image-column", "scan", *LABEL)
    result = run(small, "init", labels, "--dataset-id", NEW, *options)
    assert (result.exit_code, "5.png: File exists" in result.output) == (2, True), result.output
    assert [path.relative_to(place).as_posix() for path in place.rglob("*")] == ["images", "images/5.png"]
