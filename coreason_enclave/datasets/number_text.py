"""The declared notation of decimal numbers in a CSV file, as patterns for RE2 and for Python."""

from __future__ import annotations

import re
from functools import lru_cache

from coreason_enclave.datasets.csv_form import CsvForm

_THOUSANDS = {"": "", ",": ",", ".": r"\.", " ": "[ \u00a0\u202f]", "'": "['\u2019]"}
_EXPONENT = r"(?:[eE][+-]?[0-9]{1,3})?"


def signs_of_thousands(form: CsvForm) -> str:
    """Return the pattern of a sign between groups of three digits."""
    return _THOUSANDS[form.thousands]


def _number(form: CsvForm) -> str:
    point, between = re.escape(form.decimal), _THOUSANDS[form.thousands]
    whole = f"(?:[0-9]{{1,3}}(?:{between}[0-9]{{3}})+|[0-9]+)" if between else "[0-9]+"
    return rf"[+-]?(?:{whole}(?:{point}[0-9]*)?|{point}[0-9]+){_EXPONENT}"


def number_pattern(form: CsvForm) -> str:
    """Return the pattern of a whole cell, for RE2."""
    return rf"\A(?:{_number(form)})\z"


@lru_cache(maxsize=64)
def plain_pattern(form: CsvForm) -> re.Pattern[str]:
    """Return the pattern of a number, for :meth:`re.Pattern.fullmatch`."""
    return re.compile(_number(form))


def plain_number(cell: str, form: CsvForm) -> str:
    """Return a number of the declared notation as Python writes it, and any other text as it is."""
    if (form.decimal == "." and not form.thousands) or not plain_pattern(form).fullmatch(cell):
        return cell
    return re.sub(signs_of_thousands(form) or "(?!)", "", cell).replace(form.decimal, ".")
