"""Rows from images: a table of labels, and a folder of PNG and JPEG files that one of its columns names.

An image file is hostile until decoded. The reader:

- opens each file through the dataset's folder: a plain name, no link, no folder of its own;
- decodes the very bytes that entered the digest, one image at a time;
- takes 8-bit grey or RGB of the declared size alone, and refuses every other kind by its name;
- bounds bytes, pixels, and the sum of both over all images, before it decodes.

A problem names a row of the table, never a file: a file's name may hold a person's.
"""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from coreason_enclave.crypto import frame
from coreason_enclave.datasets.cells import require_pyarrow
from coreason_enclave.datasets.csv_table import CsvTable
from coreason_enclave.datasets.data_format import DataFormat
from coreason_enclave.datasets.hashing import HashedFile
from coreason_enclave.datasets.parquet_table import ParquetTable
from coreason_enclave.datasets.paths import DatasetFolder
from coreason_enclave.datasets.problems import DatasetSchemaRejected, Remedy, Rows, SchemaProblem
from coreason_enclave.datasets.schema import DatasetSchema
from coreason_enclave.datasets.tables import Table, read_table
from coreason_enclave.errors import ConfigurationError, DatasetRejected, Reason

if TYPE_CHECKING:
    import pyarrow as pa
    from PIL.Image import Image

DOMAIN = b"aegis.dataset.images.v1"
MAX_IMAGE_BYTES = 1 << 26
MAX_IMAGE_PIXELS = 1 << 25
"""About 5800 x 5800; 100 MB of RGB, decoded."""

_ENDS = {"PNG": b"\0\0\0\0IEND\xaeB`\x82", "JPEG": b"\xff\xd9"}
_PNG_DEPTH = slice(24, 25)  # in the header, which the format puts first
_MODES = {1: ("L", "grey"), 3: ("RGB", "RGB")}
_KINDS: Mapping[str, str] = {
    "L": "grey",
    "LA": "grey with transparency",
    "P": "of a palette",
    "RGB": "RGB",
    "RGBA": "RGB with transparency",
    "CMYK": "CMYK",
    "1": "black and white",
}
_SIZE = "the image has another size than declared"


class UnfitImage(DatasetRejected):
    """A row without a usable image; the text is a sentence about the row, and never the file's name."""


def open_table(schema: DatasetSchema, source: HashedFile) -> Table:
    """Return the reader of a table, or of an image dataset's table of labels."""
    require_pyarrow()
    return (CsvTable if schema.table_format is DataFormat.CSV else ParquetTable)(schema, source)


def require_pillow() -> None:
    """Raise :class:`ConfigurationError` unless Pillow is installed."""
    try:
        import PIL.Image  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigurationError("reading images needs Pillow: install aegis-fl[images]") from error


class NamedImages:
    """The files of a folder that the cells of a table name, each at most once.

    Args:
        within: the folder's name, for messages.
    """

    def __init__(self, folder: DatasetFolder, within: str) -> None:
        self._folder, self._within = folder, within
        self._seen: set[str] = set()

    def read(self, name: str) -> bytes:
        """Return the bytes of a file; raise :class:`UnfitImage` for a cell that names no plain file of its own."""
        if not name:
            raise UnfitImage("the cell is empty")
        if name in self._seen:
            raise UnfitImage("an earlier row names the same image")
        self._seen.add(name)
        try:
            return self._folder.read(name, limit=MAX_IMAGE_BYTES)
        except DatasetRejected as refused:
            raise UnfitImage(_why_unread(refused, self._within)) from None


@contextmanager
def images_in(path: Path) -> Iterator[NamedImages]:
    """Hold a folder of images open, anywhere on this machine, under the rules of a dataset's folder.

    Raises:
        DatasetRejected: the folder cannot be opened.
    """
    require_pillow()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise DatasetRejected(f"{path} cannot be opened ({error.strerror}): name a folder of images") from error
    try:
        yield NamedImages(DatasetFolder("images", path, descriptor), str(path))
    finally:
        os.close(descriptor)


def decode_image(data: bytes, shape: tuple[int, ...] | None = None, *, stretch: bool = False) -> npt.NDArray[np.uint8]:
    """Return the values of a PNG or JPEG file, (channels, height, width), from 0 to 255.

    Args:
        shape: the declared shape; None: the image's own, of 1 channel (grey) or 3 (RGB).
        stretch: bring an image of another size to the declared one.

    Raises:
        UnfitImage: not a whole single image of 8 bits a channel, or of another shape than declared.
    """
    if shape is None:
        with _opened(data) as image:
            channels = 1 if image.mode in ("L", "LA", "1") else 3
            shape = (channels, image.height, image.width)
    return _decoded(data, shape, stretch=stretch)


class ImageFiles:
    """The images of a dataset, in the order of its table.

    Args:
        limit: the largest sum of the files' bytes, and of the decoded values.

    Raises:
        ConfigurationError: Pillow is not installed.
    """

    def __init__(self, schema: DatasetSchema, folder: DatasetFolder, limit: int) -> None:
        require_pillow()
        assert schema.folder is not None
        assert schema.image_column is not None
        assert schema.tensor is not None
        self._schema, self._folder, self._limit = schema, folder, limit
        self._within, self._column, self._tensor = schema.folder, schema.image_column, schema.tensor
        self._names: list[str] = []
        self._problems: dict[str, tuple[int, int]] = {}

    def read(self, source: HashedFile) -> tuple[Rows, str]:
        """Return all rows and the digest over table and images.

        Raises:
            DatasetSchemaRejected: a row of the table, or an image, is not as declared.
        """
        table = open_table(self._schema, source)
        rows = read_table(self._schema, NotingTable(table, self._column, self._names))
        self._require_room()
        features = np.empty((len(self._names), *self._tensor.shape), np.float32)
        digest = self._digest(source, table, features)
        return Rows(features, rows.labels, rows.unit_ids, rows.warnings), digest

    def content(self, source: HashedFile) -> str:
        """Return the digest that :meth:`read` would return now, without decoding an image."""
        table = open_table(self._schema, source)
        for _ in NotingTable(table, self._column, self._names):
            pass
        return self._digest(source, table, None)

    def _require_room(self) -> None:
        if len(self._names) * int(np.prod(self._tensor.shape)) > self._limit:
            raise self._too_large("the decoded images have more than {} values")

    def _too_large(self, words: str) -> DatasetSchemaRejected:
        problem = f"{words.format(self._limit)}: split the dataset"
        return DatasetSchemaRejected(self._schema.dataset_id, [SchemaProblem(None, problem)])

    def _digest(self, source: HashedFile, table: Table, features: npt.NDArray[np.float32] | None) -> str:
        """Hash every image after the table, and fill ``features`` (n, *shape) if given."""
        hasher = hashlib.sha256(frame(DOMAIN, bytes.fromhex(source.hexdigest())))
        left = self._limit - source.file.size
        with self._folder.inner(self._within) as folder:
            images = NamedImages(folder, self._within)
            for row, name in enumerate(self._names):
                try:
                    data = images.read(name)
                    left -= len(data)
                    if left < 0:
                        raise self._too_large("the table and its images have more than {} bytes")
                    hasher.update(hashlib.sha256(data).digest())
                    if features is not None:
                        features[row] = self._scaled(data)
                except UnfitImage as unfit:
                    count, first = self._problems.get(str(unfit), (0, row))
                    self._problems[str(unfit)] = count + 1, first
        if self._problems:
            raise DatasetSchemaRejected(self._schema.dataset_id, [*self._found(table)])
        return hasher.hexdigest()

    def _scaled(self, data: bytes) -> npt.NDArray[np.float32]:
        image = _decoded(data, self._tensor.shape, stretch=self._schema.resize == "stretch")
        return self._tensor.to_unit(image.astype(np.float64))

    def _found(self, table: Table) -> Iterator[SchemaProblem]:
        for sentence, (count, first) in self._problems.items():
            rows = "1 row" if count == 1 else f"{count} rows"
            remedy = Remedy("", ('resize = "stretch"',)) if sentence.startswith(_SIZE) else None
            yield SchemaProblem(self._column, f"in {rows} (the first: {table.where(first)}) {sentence}", remedy)


def _why_unread(refused: DatasetRejected, within: str) -> str:
    """Return words without the file's name."""
    match refused.reason:
        case Reason.DATASET_UNKNOWN:
            return f"the named file does not exist in {within}/"
        case Reason.DATASET_PATH:
            return (
                f"the cell is not the name of a plain file in {within}/ (ASCII letters, digits, '.', '_' and '-'; no "
                "folder, no link, no second name)"
            )
        case _:
            return f"the file has more than {MAX_IMAGE_BYTES} bytes, cannot be read, or changed meanwhile"


class NotingTable:
    """A table that keeps one of its columns, of text, while its rows are read."""

    def __init__(self, table: Table, column: str, kept: list[str]) -> None:
        self._table, self._column, self._kept = table, column, kept

    def __iter__(self) -> Iterator[Mapping[str, pa.Array]]:
        import pyarrow as pa

        for batch in self._table:
            cells = batch[self._column]
            texts = cells.to_pylist() if pa.types.is_string(cells.type) else [""] * len(cells)
            self._kept += [text or "" for text in texts]
            yield batch

    def where(self, row: int) -> str:
        """Return the words for a data row, from 0."""
        return self._table.where(row)


def _decoded(data: bytes, shape: tuple[int, ...], *, stretch: bool) -> npt.NDArray[np.uint8]:
    """Return the image's values, (channels, height, width)."""
    channels, height, width = shape
    with _opened(data) as image:
        _require_kind(image, data, channels)
        if image.size != (width, height):
            if not stretch:
                raise UnfitImage(f"{_SIZE}, {width} wide and {height} high")
            from PIL.Image import Resampling

            image = image.resize((width, height), Resampling.BILINEAR)
        values = np.asarray(image, np.uint8)
    return values[None] if channels == 1 else values.transpose(2, 0, 1)


@contextmanager
def _opened(data: bytes) -> Iterator[Image]:
    """Open an image without decoding it; turn every error of the decoder into :class:`UnfitImage`."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
                yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UnfitImage(f"the image has more than {MAX_IMAGE_PIXELS} pixels") from None
    except UnidentifiedImageError:
        raise UnfitImage("the file is neither PNG nor JPEG") from None
    except UnfitImage:
        raise
    except Exception:  # noqa: BLE001 - a decoder's error may have any type, and its text may quote the file
        raise UnfitImage("the image is cut off or broken") from None


def _require_kind(image: Image, data: bytes, channels: int) -> None:
    """Raise :class:`UnfitImage` unless the image is a single one of 8 bits a channel, grey or RGB as declared."""
    mode, words = _MODES[channels]
    if image.width * image.height > MAX_IMAGE_PIXELS:
        raise UnfitImage(f"the image has more than {MAX_IMAGE_PIXELS} pixels")
    if image.format not in _ENDS or getattr(image, "is_animated", False):
        raise UnfitImage("the file holds several frames: save one as PNG")
    if image.format == "PNG" and data[_PNG_DEPTH] != b"\x08":
        raise UnfitImage("the image does not have 8 bits a channel: save it as 8-bit PNG")
    if image.mode != mode:
        raise UnfitImage(f"the image is {_KINDS.get(image.mode, 'of another kind')}: save it as 8-bit {words}")
    if not data.endswith(_ENDS[image.format]):
        raise UnfitImage("the image is cut off, or the file goes on after its end")
