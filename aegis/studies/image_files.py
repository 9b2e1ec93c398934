"""The owner's images: a folder with one table of labels, and the files that a column of the table names.

The images lie beside the table, or all in one folder beside the table. The rules for a file are a site's: a plain name,
no link, 8-bit grey or RGB, PNG or JPEG.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aegis.errors import InvalidStudy
from aegis.studies.owner_files import OwnerFile, open_owner_file
from coreason_enclave.datasets import DataFormat, NamedImages, images_in
from coreason_enclave.errors import DatasetRejected

_TABLES = (".csv", ".tsv", ".parquet", ".csv.gz", ".tsv.gz")
_IMAGES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class LabelledFolder:
    """A folder of images with a table of labels.

    Attributes:
        pictures: the folder of the image files.
        column: the table's column of file names.
    """

    path: Path
    table: OwnerFile
    pictures: Path
    column: str

    def rows(self) -> Iterator[tuple[str, Mapping[str, str]]]:
        """Yield each row of the table as its place in words and its cells."""
        return self.table.rows()

    @contextmanager
    def images(self) -> Iterator[NamedImages]:
        """Hold the folder of the images open."""
        with images_in(self.pictures) as images:
            yield images


def open_labelled_folder(
    path: Path,
    needed: Sequence[str],
    *,
    image_column: str | None = None,
    columns: Sequence[str] | None = None,
    missing: Sequence[str] = (),
) -> LabelledFolder:
    """Return a folder of images with its table.

    Args:
        needed: columns that the table must have.
        image_column: the column of file names; None: the only column whose first cell ends as an image's name does.
        columns, missing: as for :func:`~aegis.studies.owner_files.open_owner_file`.

    Raises:
        InvalidStudy: no folder, no table or several, a table without these columns, or no column of file names or
            several.
    """
    table = _opened(table_in(path), [*needed, *([image_column] if image_column else [])], columns, missing)
    if table.format is DataFormat.NPZ:
        raise InvalidStudy(f"{table.path} holds arrays: a table of labels is CSV or Parquet")
    return LabelledFolder(path, table, pictures_in(path), image_column or _column_of_names(table, needed))


def _opened(path: Path, needed: Sequence[str], columns: Sequence[str] | None, missing: Sequence[str]) -> OwnerFile:
    try:
        return open_owner_file(path, needed, columns=columns, missing=missing)
    except DatasetRejected as error:  # names the file alone, and every site's table may be called labels.csv
        raise InvalidStudy(str(error).replace(path.name, str(path), 1)) from error


def table_in(path: Path) -> Path:
    """Return the table of labels in a folder of images.

    Raises:
        InvalidStudy: ``path`` is no folder, or holds no table or several.
    """
    if not path.is_dir():
        words = "is a file" if path.exists() else "does not exist"
        raise InvalidStudy(f"{path} {words}, and other data are folders of images: give folders alone")
    tables = [each for each in _shown(path) if each.is_file() and each.name.lower().endswith(_TABLES)]
    if not tables:
        raise InvalidStudy(
            f"{path} holds no table of labels: put one CSV or Parquet file there, with the images' names"
        )
    if len(tables) > 1:
        raise InvalidStudy(f"{path} holds two tables, {tables[0].name} and {tables[1].name}: keep the table of labels")
    return tables[0]


def pictures_in(path: Path) -> Path:
    """Return the folder of the image files: ``path``, or the one folder in it if no image lies beside the table."""
    folders = [each for each in _shown(path) if each.is_dir()]
    if not folders or any(each.name.lower().endswith(_IMAGES) for each in _shown(path)):
        return path
    if len(folders) > 1:
        names = f"{folders[0].name} and {folders[1].name}"
        raise InvalidStudy(f"{path} holds the folders {names}, and no image beside the table: put all into one folder")
    return folders[0]


def _shown(path: Path) -> list[Path]:
    return sorted(each for each in path.iterdir() if not each.name.startswith("."))


def _column_of_names(table: OwnerFile, needed: Sequence[str]) -> str:
    _, first = next(table.rows(), ("", {}))
    if not first:
        raise InvalidStudy(f"{table.path} has a header and no rows")
    found = [name for name in table.names if name not in needed and first[name].lower().endswith(_IMAGES)]
    if len(found) != 1:
        words = f"columns {found[0]!r} and {found[1]!r} both name" if found else "no column names"
        raise InvalidStudy(f"{table.path}: {words} PNG or JPEG files in the first row: say which with --image-column")
    return found[0]
