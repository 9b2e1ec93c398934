"""Images that their owner keeps anywhere, part by part, named by a table: for predictions, with or without labels.

Files and images pass the same checks as a site's. Memory holds one part; of a column of persons or groups, a few bytes
a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coreason_enclave.datasets.cells import require_pyarrow
from coreason_enclave.datasets.data_format import DataFormat
from coreason_enclave.datasets.dictionary import DataDictionary
from coreason_enclave.datasets.hashing import HashedFile
from coreason_enclave.datasets.images import NamedImages, NotingTable, UnfitImage, decode_image, images_in, open_table
from coreason_enclave.datasets.paths import OpenFile
from coreason_enclave.datasets.problems import DatasetSchemaRejected
from coreason_enclave.datasets.row_stream import LARGEST_TABLE, RowNeeds, RowPart, form_for, kind_of
from coreason_enclave.datasets.tables import TableReader
from coreason_enclave.errors import DatasetRejected

_VALUES_AT_ONCE = 1 << 24


class ImageNeeds(RowNeeds):
    """The declaration of a table of labels outside a site. No column of the table is a model input."""

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """The shape of one row's inputs: none, since the image is the example."""
        return (0,)

    @property
    def reads(self) -> tuple[str, ...]:
        """Every column of the table that the rows need, once."""
        return tuple(dict.fromkeys([*([self.image_column] if self.image_column else []), *super().reads]))


class ImageStream:
    """Images in parts, as a data dictionary declares them.

    Args:
        table: CSV of any delimiter and encoding, perhaps gzipped, or Parquet.
        folder: the images that a column of the table names.
        dictionary: declares the shape, the range of the values, and the label.
        column: the column of file names; None: as the dictionary names it.
        labelled: every row needs a label.
        group: a further column, to resample by instead of persons.

    Attributes:
        persons, groups: int64 codes, (n,), after the iteration; None without the column.

    Raises:
        DatasetRejected: the table cannot be read or lacks a column, or (while iterating) a row has no usable image, or
            (at the end) a cell has no declared meaning.
    """

    def __init__(
        self,
        table: Path,
        folder: Path,
        dictionary: DataDictionary,
        *,
        column: str | None = None,
        labelled: bool = True,
        group: str | None = None,
    ) -> None:
        known = dictionary.model_copy(update={"image_column": column or dictionary.image_column})
        if known.image_column is None or known.tensor is None:
            raise DatasetRejected("the data dictionary declares no images: give rows of the form that it declares")
        self._path, self._folder, self._dictionary = table, folder, known
        kind = kind_of(table)
        file = "labels.parquet" if kind is DataFormat.PARQUET else "labels.csv"
        declared = known.declaration(file=file, public=False)
        document = {
            **{name: getattr(declared, name) for name in type(declared).model_fields},
            "unit_column": declared.unit_column if labelled and group is None else None,
            "labelled": labelled,
            "group_column": group,
        }
        needs = ImageNeeds.model_validate(document)
        form = form_for(table, needs.reads) if kind is DataFormat.CSV else None
        self._needs = needs.model_copy(update={"csv": form})
        self.persons: npt.NDArray[np.int64] | None = None
        self.groups: npt.NDArray[np.int64] | None = None

    def __iter__(self) -> Iterator[RowPart]:
        require_pyarrow()
        try:
            with images_in(self._folder) as images:
                yield from self._parts(images)
        except DatasetSchemaRejected as refused:
            listed = "; ".join(str(problem) for problem in refused.problems[:5])
            raise DatasetRejected(f"{self._path.name}: {listed}") from None

    def _parts(self, images: NamedImages) -> Iterator[RowPart]:
        needs, names, first = self._needs, list[str](), 0
        assert needs.image_column is not None
        reader = TableReader(needs, labelled=needs.labelled, group=needs.group_column)
        with self._path.open("rb") as file:
            source = HashedFile(OpenFile(file, self._path.name, self._path.stat().st_size, LARGEST_TABLE), b"")
            table = open_table(needs, source)
            for batch in NotingTable(table, needs.image_column, names):
                reader.take(batch)
                labels = reader.drain()[1]
                for part in self._decoded(images, names, first, labels):
                    yield part
                    first += len(part.features)
                names.clear()
        self.persons, self.groups = reader.codes(table.where)

    def _decoded(
        self, images: NamedImages, names: list[str], first: int, labels: npt.NDArray[Any] | None
    ) -> Iterator[RowPart]:
        tensor, stretch = self._dictionary.tensor, self._dictionary.resize == "stretch"
        assert tensor is not None
        at_once = max(1, _VALUES_AT_ONCE // int(np.prod(tensor.shape)))
        for start in range(0, len(names), at_once):
            chosen = names[start : start + at_once]
            features = np.empty((len(chosen), *tensor.shape), np.float32)
            for place, name in enumerate(chosen):
                try:
                    values = decode_image(images.read(name), tensor.shape, stretch=stretch)
                except UnfitImage as unfit:
                    row = first + start + place + 1
                    raise DatasetRejected(f"{self._path}: in row {row} below the header {unfit}") from None
                features[place] = tensor.to_unit(values.astype(np.float64))
            yield RowPart(first + start, features, None if labels is None else labels[start : start + len(chosen)])
