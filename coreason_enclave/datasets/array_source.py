"""An npz archive that its owner has not declared yet: the form and the extent of its arrays, part by part.

Memory holds one part of an array, whatever the archive's size; no pickled object is ever loaded.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from coreason_enclave.datasets.data_format import TENSOR_FEATURES, TENSOR_LABELS, TENSOR_UNITS
from coreason_enclave.datasets.paths import MAX_FILE_BYTES
from coreason_enclave.errors import DatasetRejected

_PART_BYTES = 1 << 22
_SUFFIX = ".npy"


@dataclass(frozen=True)
class ArraySummary:
    """One array: its type, its shape, the smallest and largest of its values, and whether all are whole."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    low: float
    high: float
    whole: bool


def summarised_arrays(path: Path) -> Mapping[str, ArraySummary]:
    """Return the summaries of ``x``, ``y`` and, if there is one, ``unit``.

    Raises:
        DatasetRejected: the file is no whole archive of numbers, an array is missing, beside the point, or of another
            length, or there is no example.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _require_names(path, archive.infolist())
            arrays = {member.removesuffix(_SUFFIX): _summary(path, archive, member) for member in archive.namelist()}
    except (zipfile.BadZipFile, zipfile.LargeZipFile, ValueError, EOFError, OSError, RuntimeError, zlib.error) as error:
        raise DatasetRejected(f"{path.name} is no whole npz archive: save x and y with numpy.savez") from error
    _require_one_length(path, arrays)
    return arrays


def _require_names(path: Path, members: list[zipfile.ZipInfo]) -> None:
    names = [member.filename.removesuffix(_SUFFIX) for member in members]
    wanted = (TENSOR_FEATURES, TENSOR_LABELS)
    if absent := [name for name in wanted if name not in names]:
        raise DatasetRejected(
            f"{path.name} has no array {absent[0]!r}: it has {', '.join(names)}, and needs x (n, ...) and y"
        )
    if further := sorted(set(names) - {*wanted, TENSOR_UNITS}):
        raise DatasetRejected(f"{path.name} has a further array {further[0]!r}: save only x, y and, if any, unit")
    if len(set(names)) < len(names):
        raise DatasetRejected(f"{path.name} names an array twice: save it again")
    if sum(member.file_size for member in members) > MAX_FILE_BYTES:
        raise DatasetRejected(f"{path.name} holds more than {MAX_FILE_BYTES} bytes: split the dataset")


def _summary(path: Path, archive: zipfile.ZipFile, member: str) -> ArraySummary:
    name = member.removesuffix(_SUFFIX)
    with archive.open(member) as file:
        shape, dtype = _form(file)
        if dtype.kind not in "fiu":
            kind = "yes and no" if dtype.kind == "b" else "no numbers"
            raise DatasetRejected(f"{path.name}: {name} holds {kind}: save it as numbers, such as {name}.astype(int)")
        low, high, whole = np.inf, -np.inf, True
        for part in _parts(file, dtype, int(np.prod(shape))):
            if not np.isfinite(part).all():
                raise DatasetRejected(f"{path.name}: {name} holds values that are not finite")
            low, high = min(low, float(part.min())), max(high, float(part.max()))
            whole = whole and (dtype.kind in "iu" or bool((part == np.floor(part)).all()))
    return ArraySummary(name, dtype, shape, low, high, whole)


def _form(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise ValueError("a version of npy for names of fields, which no array of numbers has")
    shape, _, dtype = readers[version](file)
    return shape, dtype


def _parts(file: IO[bytes], dtype: np.dtype[Any], values: int) -> Iterator[npt.NDArray[Any]]:
    """Yield all values in the file's order, in parts; raise :class:`EOFError` at a file cut off."""
    at_once = max(1, _PART_BYTES // dtype.itemsize)
    for at in range(0, values, at_once):
        count = min(at_once, values - at)
        data = file.read(count * dtype.itemsize)
        if len(data) < count * dtype.itemsize:
            raise EOFError
        yield np.frombuffer(data, dtype)


def _require_one_length(path: Path, arrays: Mapping[str, ArraySummary]) -> None:
    lengths = {array.shape[0] if array.shape else 0 for array in arrays.values()}
    if len(lengths) != 1 or lengths == {0}:
        raise DatasetRejected(f"{path.name}: x, y and unit need the same number of examples, at least one")
    if not 2 <= len(arrays[TENSOR_FEATURES].shape) <= 5:
        raise DatasetRejected(f"{path.name}: x needs a shape of 2 to 5 numbers, (examples, ...), such as (n, 28, 28)")
    units = arrays.get(TENSOR_UNITS)
    if units is not None and (units.dtype.kind not in "iu" or len(units.shape) != 1):
        raise DatasetRejected(f"{path.name}: unit needs one whole number for each example, the person behind it")
