"""Arrays that grow row by row without a second copy of themselves."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

Number = TypeVar("Number", bound=np.generic)

_FIRST_ROWS = 4096


class GrowingArray(Generic[Number]):
    """An array of shape (n, *shape) for a number of rows known only at the end.

    The array grows in place by an eighth, and the operating system moves pages instead of bytes. A list of parts,
    joined at the end, would hold every row twice.
    """

    def __init__(self, dtype: np.dtype[Number] | type[Number], shape: tuple[int, ...] = ()) -> None:
        self._rows = 0
        self._array: npt.NDArray[Number] = np.empty((_FIRST_ROWS, *shape), dtype)

    def extend(self, rows: int) -> npt.NDArray[Number]:
        """Add ``rows`` rows and return a view of them, to be written before the next call."""
        wanted = self._rows + rows
        if wanted > len(self._array):
            self._resize(max(wanted, len(self._array) + len(self._array) // 8))
        self._rows = wanted
        return self._array[wanted - rows : wanted]

    def append(self, values: npt.ArrayLike) -> None:
        """Add ``values`` of shape (rows, *shape)."""
        array = np.asarray(values)
        self.extend(len(array))[...] = array

    def finish(self) -> npt.NDArray[Number]:
        """Return the array, cut to its rows."""
        self._resize(self._rows)
        return self._array

    def _resize(self, rows: int) -> None:
        # Views of earlier rows exist while a caller holds them; each is dropped before the next extend.
        self._array.resize((rows, *self._array.shape[1:]), refcheck=False)


AnyGrowing = GrowingArray[Any]
