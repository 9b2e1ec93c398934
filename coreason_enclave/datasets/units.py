"""Codes for the persons behind rows, and the suspicion that one person goes by two spellings.

Two spellings of one person would count as two persons, each protected alone: weaker than the declared guarantee.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from coreason_enclave.datasets.cells import ColumnCells, Where
from coreason_enclave.datasets.csv_form import CsvForm
from coreason_enclave.datasets.problems import SchemaProblem
from coreason_enclave.datasets.spellings import Numbers, typed_text

if TYPE_CHECKING:
    import pyarrow as pa

_NUMBER = re.compile(r"[+-]?[0-9]{1,40}(?:\.[0-9]*)?(?:e[+-]?[0-9]{1,2})?")
# Distinct cells of this form fold to distinct texts: lower-case names without spaces, and whole numbers as usual.
_CANONICAL = r"\A(?:0|-?[1-9][0-9]{0,14}|[a-z_][a-z0-9_-]*|[0-9]+[a-df-z_-][a-z0-9_-]*)\z"


class PersonCodes:
    """The reader of the unit column: a code for each row, from 0, in the order of the spellings."""

    def __init__(self, name: str, form: CsvForm) -> None:
        self.name = name
        self._cells = ColumnCells(name, Numbers(), form)
        self._parts: list[pa.DictionaryArray] = []

    def read(self, cells: pa.Array, offset: int) -> None:
        """Take one batch of the column."""
        import pyarrow as pa

        if not pa.types.is_string(cells.type):
            cells = _as_text(cells)
        self._cells.missing.add(self._cells.absent(cells), offset)
        self._parts.append(cells.dictionary_encode())

    def finish(self, problems: list[SchemaProblem], where: Where) -> npt.NDArray[np.int64]:
        """Return int64 codes, (n,), and add the column's problems."""
        import pyarrow as pa
        import pyarrow.compute as pc

        missing = self._cells.missing
        if missing.count:
            words = f"{missing.words(where)} missing: every row needs the id of its person"
            problems.append(SchemaProblem(self.name, words))
        column = pa.chunked_array(self._parts).unify_dictionaries()
        self._parts.clear()
        spellings = column.chunk(0).dictionary
        ranks = np.empty(len(spellings) + 1, np.int64)
        ranks[pc.array_sort_indices(spellings).to_numpy()] = np.arange(len(spellings))
        ranks[-1] = 0  # a missing id of a typed file, refused above
        if spelled_twice(spellings):
            problems.append(SchemaProblem(self.name, "the same unit id is written in different ways: settle on one"))
        codes = np.empty(len(column), np.int64)
        at = 0
        for part in column.chunks:
            codes[at : at + len(part)] = ranks[part.indices.fill_null(len(spellings)).to_numpy(zero_copy_only=False)]
            at += len(part)
        return codes


def spelled_twice(spellings: pa.StringArray) -> bool:
    """Tell whether two of these distinct spellings may name one person.

    Spellings of a plain form are compared by pyarrow; :func:`person` folds the remaining ones, one by one.
    """
    import pyarrow.compute as pc

    lowered = pc.ascii_lower(spellings)
    if pc.count_distinct(lowered).as_py() < len(spellings):
        return True
    plain = pc.match_substring_regex(lowered, _CANONICAL)
    known = lowered.filter(plain)
    folds: set[str] = set()
    for spelling in lowered.filter(pc.invert(plain)).to_pylist():
        fold = person_fold(spelling)
        if fold in folds:
            return True
        folds.add(fold)
    return bool(pc.any(pc.is_in(known, value_set=_texts(folds))).as_py())


def person_fold(spelling: str) -> str:
    """Return the common form of a person's suspicious spellings.

    Folds case, Unicode variants, spaces and invisible signs anywhere, and notations of one number: 7, 007, 7.0, 0.7e1.
    """
    text = unicodedata.normalize("NFKC", spelling).casefold()
    text = "".join(sign for sign in text if not sign.isspace() and unicodedata.category(sign) not in {"Cf", "Cc"})
    if not _NUMBER.fullmatch(text):
        return text
    number = Decimal(text)
    return str(int(number)) if number == number.to_integral_value() else text


def _texts(values: set[str]) -> pa.Array:
    import pyarrow as pa

    return pa.array(sorted(values), pa.string())


def _as_text(cells: pa.Array) -> pa.Array:
    import pyarrow as pa

    return pa.array([typed_text(value) for value in cells.to_pylist()], pa.string())
