"""Images beside a table of labels: decoded as declared, and every hostile or odd file refused by its kind."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from coreason_enclave.datasets import (
    CheckedDatasets,
    DatasetSchemaRejected,
    check_dataset,
    content_digest,
    declared_schema,
    images,
    open_dataset,
    parse_schema,
)
from coreason_enclave.errors import DatasetRejected, Reason

SCHEMA = """
version = 1
dataset_id = "clinic/scans"
format = "images"
file = "labels.csv"
folder = "pictures"
image_column = "scan"
public = false
unit_column = "patient"
label = { column = "ill", classes = 2 }
tensor = { shape = [1, 4, 6], low = 0, high = 255 }
"""
COLOUR = SCHEMA.replace("[1, 4, 6]", "[3, 4, 6]")
STRETCHED = SCHEMA.replace('image_column = "scan"', 'image_column = "scan"\nresize = "stretch"')
ROWS = "patient,scan,ill\np1,a.png,1\np2,b.png,0\np1,c.png,0\n"


def pixels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, form, **options)
    return data.getvalue()


GREY = {name: pixels(seed, 4, 6) for seed, name in enumerate(("a.png", "b.png", "c.png"))}
FILES = {name: encoded(Image.fromarray(values)) for name, values in GREY.items()}

Write = Callable[..., Path]


@pytest.fixture
def write(data_root: Path) -> Write:
    def write(schema: str = SCHEMA, rows: str = ROWS, **changed: bytes) -> Path:
        folder = data_root / "clinic" / "scans"
        (folder / "pictures").mkdir(parents=True, exist_ok=True)
        (folder / "dataset.toml").write_text(schema)
        (folder / "labels.csv").write_text(rows)
        for name, data in {**FILES, **{name.replace("_", "."): data for name, data in changed.items()}}.items():
            (folder / "pictures" / name).write_bytes(data)
        return folder

    return write


def refusal(root: Path) -> str:
    with pytest.raises(DatasetSchemaRejected) as refused:
        open_dataset(root, "clinic/scans")
    return str(refused.value)


def test_images_become_scaled_arrays_in_the_order_of_the_table(data_root: Path, write: Write) -> None:
    write()
    dataset = open_dataset(data_root, "clinic/scans")
    expected = np.stack([GREY[name] for name in ("a.png", "b.png", "c.png")])[:, None].astype(np.float64)
    assert dataset.features.dtype == np.float32
    np.testing.assert_allclose(dataset.features, expected / 127.5 - 1, atol=1e-6)
    assert dataset.labels.tolist() == [1, 0, 0]
    assert dataset.unit_ids is not None
    assert dataset.unit_ids.tolist() == [0, 1, 0]
    assert dataset.schema.sample_shape == (1, 4, 6)
    assert check_dataset(data_root, "clinic/scans") == ()


def test_colour_becomes_three_channels(data_root: Path, write: Write) -> None:
    values = pixels(9, 4, 6, 3)
    write(COLOUR, "patient,scan,ill\np1,a.png,1\n", a_png=encoded(Image.fromarray(values)))
    features = open_dataset(data_root, "clinic/scans").features
    np.testing.assert_allclose(features[0], values.transpose(2, 0, 1) / 127.5 - 1, atol=1e-6)


def test_a_jpeg_is_read_whatever_its_name_says(data_root: Path, write: Write) -> None:
    jpeg = encoded(Image.fromarray(np.full((4, 6), 200, np.uint8)), "JPEG", quality=95)
    write(a_png=jpeg)
    np.testing.assert_allclose(open_dataset(data_root, "clinic/scans").features[0], 200 / 127.5 - 1, atol=0.02)


def test_a_table_of_labels_may_be_parquet(data_root: Path, write: Write) -> None:
    folder = write(SCHEMA.replace("labels.csv", "labels.parquet"))
    table = {"patient": [1, 2, 1], "scan": ["a.png", "b.png", "c.png"], "ill": [1, 0, 0], "age": [1, 2, 3]}
    pq.write_table(pa.table(table), folder / "labels.parquet")
    assert open_dataset(data_root, "clinic/scans").labels.tolist() == [1, 0, 0]


def test_another_size_is_refused_or_stretched_as_declared(data_root: Path, write: Write) -> None:
    large = np.kron(GREY["a.png"], np.ones((8, 8), np.uint8))
    write(a_png=encoded(Image.fromarray(large)))
    assert refusal(data_root).endswith(
        "column 'scan': in 1 row (the first: line 2) the image has another size than declared, 6 wide and 4 high: "
        'write `resize = "stretch"` at the top of dataset.toml'
    )
    write(STRETCHED, a_png=encoded(Image.fromarray(large)))
    found = open_dataset(data_root, "clinic/scans").features[0, 0]
    np.testing.assert_allclose(found, GREY["a.png"] / 127.5 - 1, atol=0.45)
    assert np.corrcoef(found.ravel(), GREY["a.png"].ravel())[0, 1] > 0.95


def test_the_digest_covers_the_table_and_every_image_that_it_names_in_order(data_root: Path, write: Write) -> None:
    folder = write()
    digests = {content_digest(data_root, "clinic/scans")}
    assert digests == {open_dataset(data_root, "clinic/scans").digest}
    (folder / "pictures" / "unnamed.png").write_bytes(b"not read")
    assert content_digest(data_root, "clinic/scans") in digests
    (folder / "pictures" / "c.png").write_bytes(FILES["a.png"])
    digests.add(content_digest(data_root, "clinic/scans"))
    (folder / "pictures" / "b.png").write_bytes(FILES["c.png"])
    (folder / "pictures" / "c.png").write_bytes(FILES["b.png"])
    digests.add(content_digest(data_root, "clinic/scans"))
    write(rows=ROWS.replace("p2", "p3"))
    digests.add(content_digest(data_root, "clinic/scans"))
    assert len(digests) == 4


def test_the_digest_follows_from_the_bytes_alone(data_root: Path, write: Write) -> None:
    """Computed here from the published form, without the reader's code."""
    write()

    def framed(domain: bytes, part: bytes) -> bytes:
        return len(domain).to_bytes(8, "big") + domain + len(part).to_bytes(8, "big") + part

    from coreason_enclave.crypto import frame

    assert frame(b"a", b"bc") == framed(b"a", b"bc")
    table = framed(b"aegis.dataset.v1", SCHEMA.encode()) + len(ROWS).to_bytes(8, "big") + ROWS.encode()
    whole = framed(b"aegis.dataset.images.v1", hashlib.sha256(table).digest())
    whole += b"".join(hashlib.sha256(FILES[name]).digest() for name in ("a.png", "b.png", "c.png"))
    assert content_digest(data_root, "clinic/scans") == hashlib.sha256(whole).hexdigest()


def test_a_kept_dataset_is_read_again_once_an_image_changes(data_root: Path, write: Write) -> None:
    folder, kept = write(), CheckedDatasets()
    first = open_dataset(data_root, "clinic/scans", checked=kept)
    assert np.array_equal(open_dataset(data_root, "clinic/scans", checked=kept).features, first.features)
    (folder / "pictures" / "a.png").write_bytes(FILES["b.png"])
    again = open_dataset(data_root, "clinic/scans", checked=kept)
    assert np.array_equal(again.features[0], first.features[1])


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


GREY_IMAGE = Image.fromarray(GREY["a.png"])
COLOUR_IMAGE = Image.fromarray(pixels(3, 4, 6, 3))
SAVE = "save it as 8-bit grey"
PIXELS = f"the image has more than {images.MAX_IMAGE_PIXELS} pixels"
CUT = "the image is cut off or broken"
ENDS = "the image is cut off, or the file goes on after its end"
HOSTILE: dict[str, tuple[bytes, str]] = {
    "a bomb that says so": (_png(60_000, 60_000, 8, 0, b"\0" * 100), PIXELS),
    "a bomb below the decoder's own alarm": (_png(6_000, 6_000, 8, 0, b"\0" * 100), PIXELS),
    "a bomb of text": (
        FILES["a.png"][:33] + _chunk(b"zTXt", b"k\0\0" + zlib.compress(b"x" * (1 << 27))) + FILES["a.png"][33:],
        CUT,
    ),
    "a program after the image": (FILES["a.png"] + b"PK\x03\x04 and a program", ENDS),
    "a program after a JPEG": (encoded(GREY_IMAGE, "JPEG") + b"PK\x03\x04 and a program", ENDS),
    "an image after a program": (b"#!/bin/sh\n" + FILES["a.png"], "the file is neither PNG nor JPEG"),
    "a GIF": (encoded(GREY_IMAGE, "GIF"), "the file is neither PNG nor JPEG"),
    "a TIFF": (encoded(GREY_IMAGE, "TIFF"), "the file is neither PNG nor JPEG"),
    "a web page": (b"<svg onload=alert(1)>", "the file is neither PNG nor JPEG"),
    "nothing": (b"", "the file is neither PNG nor JPEG"),
    "half an image": (encoded(Image.fromarray(pixels(1, 4, 6)))[:50], ENDS),
    "a PNG without its end": (FILES["a.png"][:-12], ENDS),
    "a PNG with too few rows": (_png(6, 4, 8, 0, b"\0" * 8), CUT),
    "half a JPEG": (encoded(Image.fromarray(pixels(1, 4, 6)), "JPEG")[:-30], ENDS),
    "a JPEG whose scan is cut out": (encoded(GREY_IMAGE, "JPEG")[:-40] + b"\xff\xd9", CUT),
    "an animation": (
        encoded(GREY_IMAGE, save_all=True, append_images=[Image.fromarray(GREY["b.png"])]),
        "the file holds several frames: save one as PNG",
    ),
    "several pictures in a JPEG": (
        encoded(GREY_IMAGE.convert("RGB"), "MPO", save_all=True, append_images=[COLOUR_IMAGE]),
        "the file holds several frames: save one as PNG",
    ),
    "16 bits of grey": (
        encoded(Image.fromarray(np.full((4, 6), 700, np.uint16))),
        "the image does not have 8 bits a channel: save it as 8-bit PNG",
    ),
    "16 bits of colour": (
        _png(6, 4, 16, 2, (b"\0" + b"\1\2" * 18) * 4),
        "the image does not have 8 bits a channel: save it as 8-bit PNG",
    ),
    "1 bit": (encoded(GREY_IMAGE.convert("1")), "the image does not have 8 bits a channel: save it as 8-bit PNG"),
    "CMYK": (encoded(COLOUR_IMAGE.convert("CMYK"), "JPEG"), f"the image is CMYK: {SAVE}"),
    "colour": (encoded(COLOUR_IMAGE), f"the image is RGB: {SAVE}"),
    "transparency": (encoded(COLOUR_IMAGE.convert("RGBA")), f"the image is RGB with transparency: {SAVE}"),
    "grey and transparency": (encoded(GREY_IMAGE.convert("LA")), f"the image is grey with transparency: {SAVE}"),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("schema", [SCHEMA, STRETCHED], ids=["as they are", "stretched"])
def test_an_odd_or_hostile_file_is_refused_by_its_kind(data_root: Path, write: Write, kind: str, schema: str) -> None:
    data, words = HOSTILE[kind]
    write(schema, b_png=data)
    assert refusal(data_root) == (
        f"dataset 'clinic/scans' is refused: column 'scan': in 1 row (the first: line 3) {words}"
    )


NO_FILE = "the cell is not the name of a plain file in pictures/"
ODD_NAMES = {
    "no such file": ("d.png", "the named file does not exist in pictures/"),
    "an absolute path": ("/etc/passwd", NO_FILE),
    "a path out of the folder": ("../labels.csv", NO_FILE),
    "a folder below": ("more/b.png", NO_FILE),
    "the folder itself": (".", NO_FILE),
    "a folder": ("more", NO_FILE),
    "a symbolic link": ("link.png", NO_FILE),
    "a second name of a file": ("hard.png", NO_FILE),
    "a pipe": ("pipe.png", NO_FILE),
    "an empty cell": ("", "the cell is empty"),
    "the same image again": ("a.png", "an earlier row names the same image"),
}


@pytest.mark.parametrize("kind", ODD_NAMES)
def test_a_name_leads_to_a_plain_file_in_the_folder_or_is_refused(data_root: Path, write: Write, kind: str) -> None:
    name, words = ODD_NAMES[kind]
    folder = write(rows=ROWS.replace("b.png", name)) / "pictures"
    (folder / "more").mkdir()
    (folder / "more" / "b.png").write_bytes(FILES["b.png"])
    (folder / "link.png").symlink_to(folder / "b.png")
    (folder / "hard.png").hardlink_to(folder / "more" / "b.png")
    os.mkfifo(folder / "pipe.png")
    text = refusal(data_root)
    assert f"in 1 row (the first: line 3) {words}" in text
    assert len(name) < 2 or name not in text


def test_a_folder_of_images_that_is_a_link_is_refused(data_root: Path, write: Write, tmp_path: Path) -> None:
    folder = write()
    (folder / "pictures").rename(tmp_path / "elsewhere")
    (folder / "pictures").symlink_to(tmp_path / "elsewhere")
    for read in (open_dataset, content_digest, declared_schema):
        with pytest.raises(DatasetRejected, match="cannot be opened") as refused:
            read(data_root, "clinic/scans")
        assert refused.value.reason is Reason.DATASET_PATH


def test_problems_are_counted_by_kind_with_the_first_row_of_each(data_root: Path, write: Write) -> None:
    rows = ROWS + "p4,x.png,1\np5,y.png,1\n"
    write(rows=rows, b_png=b"no image")
    assert refusal(data_root).split("refused: ")[1].split("; ") == [
        "column 'scan': in 1 row (the first: line 3) the file is neither PNG nor JPEG",
        "column 'scan': in 2 rows (the first: line 5) the named file does not exist in pictures/",
    ]


def test_problems_of_the_table_come_first(data_root: Path, write: Write) -> None:
    write(rows=ROWS.replace(",1\n", ",7\n"))
    assert "column 'ill': 1 cell is (the first in line 2) not a whole number from 0 to 1" in refusal(data_root)
    write(rows=ROWS.replace(",", ";"))
    assert 'write `delimiter = ";"` below [csv]' in refusal(data_root)
    write(rows=ROWS.replace("scan", "Scan"))
    assert "column 'scan': is missing; the header names 'Scan'" in refusal(data_root)


def test_files_and_values_are_bounded_together(data_root: Path, write: Write) -> None:
    write()
    size = len(ROWS) + sum(map(len, FILES.values()))
    assert len(open_dataset(data_root, "clinic/scans", max_bytes=size)) == 3
    with pytest.raises(DatasetSchemaRejected, match=f"table and its images have more than {size - 1} bytes"):
        open_dataset(data_root, "clinic/scans", max_bytes=size - 1)
    with pytest.raises(DatasetSchemaRejected, match="the decoded images have more than 71 values"):
        open_dataset(data_root, "clinic/scans", max_bytes=71)


def test_a_single_file_is_bounded(data_root: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_IMAGE_BYTES", len(FILES["a.png"]))
    write(b_png=FILES["b.png"] + b"more")
    assert f"line 3) the file has more than {len(FILES['a.png'])} bytes" in refusal(data_root)


WRONG_SCHEMAS = {
    "no folder": (SCHEMA.replace('folder = "pictures"\n', ""), "needs folder and image_column"),
    "no column": (SCHEMA.replace('image_column = "scan"\n', ""), "needs folder and image_column"),
    "a folder elsewhere": (SCHEMA.replace("pictures", "../pictures"), "folder"),
    "two channels": (SCHEMA.replace("[1, 4, 6]", "[2, 4, 6]"), r"1 channel \(grey\) or 3 \(RGB\)"),
    "no channels": (SCHEMA.replace("[1, 4, 6]", "[4, 6]"), r"\[channels, height, width\]"),
    "features": (f'{SCHEMA}features = [{{ name = "x", low = 0, high = 1 }}]\n', r"takes no \[\[features\]\]"),
    "a column twice": (SCHEMA.replace('"scan"', '"patient"'), "patient has two roles"),
    "another format": (SCHEMA.replace('"images"', '"npz"'), "takes no folder, image_column and resize"),
    "another rule": (STRETCHED.replace("stretch", "crop"), "resize"),
}


@pytest.mark.parametrize("name", WRONG_SCHEMAS)
def test_a_declaration_of_images_is_complete_and_consistent(name: str) -> None:
    schema, words = WRONG_SCHEMAS[name]
    with pytest.raises(DatasetRejected, match=words):
        parse_schema(schema.encode())
