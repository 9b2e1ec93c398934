"""The declared form of a CSV file: the ``[csv]`` table of ``dataset.toml``."""

from __future__ import annotations

import codecs
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, Strict, model_validator

from coreason_enclave.datasets.declaration import require_distinct
from coreason_enclave.datasets.spellings import MISSING, ColumnName
from coreason_enclave.schemas import Flag, StrictModel, in_range

ENCODINGS = frozenset(
    {
        *("ascii", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"),
        *(f"cp{page}" for page in (437, 850, 852, 858, 862, 866, 874, 932, 949, 950, *range(1250, 1259))),
        *(f"iso8859-{part}" for part in (*range(1, 12), *range(13, 17))),
        *("koi8-r", "koi8-u", "mac-roman", "mac-cyrillic", "mac-latin2", "tis-620"),
        *("gb18030", "gbk", "gb2312", "big5", "big5hkscs", "shift_jis", "euc_jp", "iso2022_jp", "euc_kr"),
    }
)
"""Python's text codecs for tables, by canonical name. Other codecs turn one text into another, such as rot13."""


def _delimiter(value: str) -> str:
    if len(value) != 1 or not value.isascii() or value.isalnum() or value in '"\r\n\\.-+_\0':
        raise ValueError('must be one ASCII sign such as ",", ";" or "\\t"')
    return value


def _encoding(value: str) -> str:
    try:
        name = codecs.lookup(value).name
    except (LookupError, ValueError):
        name = ""
    if name not in ENCODINGS:
        raise ValueError('must be a text encoding such as "utf-8", "utf-16", "cp1252", "cp1251" or "gb18030"')
    return value


def _spelling_of_nothing(value: str) -> str:
    if len(value) > 64 or value != value.strip():
        raise ValueError("must be at most 64 characters, without spaces at either end")
    return value


class CsvForm(StrictModel):
    """How a CSV file is written.

    Attributes:
        delimiter: one character.
        encoding: a Python codec of text.
        header: whether the first line names the columns; otherwise ``columns`` names them, in order.
        decimal, thousands: the signs within numbers; a space as ``thousands`` includes no-break spaces.
        compression: none or gzip.
        missing: spellings of a missing cell, compared without case and outer spaces.
        skip_rows: lines before the header.
        trim: spaces around names and cells carry no meaning.
    """

    delimiter: Annotated[str, Strict(), AfterValidator(_delimiter)] = ","
    encoding: Annotated[str, Strict(), AfterValidator(_encoding)] = "utf-8"
    header: Flag = True
    columns: Annotated[tuple[ColumnName, ...], Field(min_length=2, max_length=200_000)] | None = None
    decimal: Literal[".", ","] = "."
    thousands: Literal["", ",", ".", " ", "'"] = ""
    compression: Literal["none", "gzip"] = "none"
    missing: (
        Annotated[tuple[Annotated[str, AfterValidator(_spelling_of_nothing)], ...], Field(max_length=100)] | None
    ) = None
    skip_rows: Annotated[int, Strict(), *in_range(0, 1000)] = 0
    trim: Flag = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.header == (self.columns is not None):
            raise ValueError("needs columns = the names in order with header = false, and only then")
        if self.columns is not None:
            require_distinct("columns", self.columns)
        if self.decimal == self.thousands:
            raise ValueError("needs two signs for decimal and thousands")
        return self

    @cached_property
    def missing_folds(self) -> frozenset[str]:
        """Spellings of a missing cell, without case and outer spaces."""
        spellings = MISSING if self.missing is None else self.missing
        return frozenset(text.strip().casefold() for text in spellings)

    @cached_property
    def codec(self) -> str:
        """The canonical name of the encoding."""
        return codecs.lookup(self.encoding).name
