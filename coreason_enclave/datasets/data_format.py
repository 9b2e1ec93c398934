"""The formats of a dataset's rows, and the form of an array of examples."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from coreason_enclave.datasets.declaration import Range
from coreason_enclave.datasets.spellings import Count

TENSOR_FEATURES = "x"
TENSOR_LABELS = "y"
TENSOR_UNITS = "unit"


class DataFormat(StrEnum):
    """The form of the rows.

    ``csv``, ``parquet``: a table of named columns. ``npz``, ``safetensors``: arrays ``x``, ``y`` and optionally
    ``unit``. ``images``: a table of labels that names the files of a folder.
    """

    CSV = "csv"
    PARQUET = "parquet"
    NPZ = "npz"
    SAFETENSORS = "safetensors"
    IMAGES = "images"

    @property
    def is_table(self) -> bool:
        """Tell whether the rows form a table of named columns."""
        return self in {DataFormat.CSV, DataFormat.PARQUET}


class TensorFeatures(Range):
    """The shape of one example of a tensor dataset, and the declared public range of all its values."""

    shape: Annotated[tuple[Count, ...], Field(min_length=1, max_length=4)]
