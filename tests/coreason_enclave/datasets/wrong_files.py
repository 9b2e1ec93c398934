"""Files as they come from spreadsheets and databases, the words of each refusal, and what makes them readable.

``remedy`` changes the parsed ``dataset.toml``; None where only another file helps.
"""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Remedy = Callable[[dict[str, Any]], None]

HEADER = "patient,age,income,visited\n"
GOOD = HEADER + "p2,50,10,1\np1,0,,0\np2,100,-5,1\n"
SEEMS = "the file seems to be "


@dataclass(frozen=True)
class WrongFile:
    """Bytes, the whole refusal after the dataset's name, and the remedy that its words name."""

    data: str | bytes
    message: str
    remedy: Remedy | None = None


def csv_entries(**entries: Any) -> Remedy:
    def apply(document: dict[str, Any]) -> None:
        document.setdefault("csv", {}).update(entries)

    return apply


def feature(name: str, replacement: dict[str, Any]) -> Remedy:
    def apply(document: dict[str, Any]) -> None:
        places = {table["name"]: at for at, table in enumerate(document["features"])}
        document["features"][places[name]] = replacement

    return apply


def label(**entries: Any) -> Remedy:
    def apply(document: dict[str, Any]) -> None:
        document["label"] = {"column": "visited", **entries}

    return apply


def renamed(document: dict[str, Any]) -> None:
    document["unit_column"] = "Patient"
    document["label"]["column"] = "VISITED"
    for table in document["features"]:
        table["name"] = table["name"].capitalize()


def _add(lines: str) -> str:
    return f"write {lines} below [csv] of dataset.toml"


def _workbook() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return data.getvalue()


NAMES = ["patient", "age", "income", "visited"]
SEMICOLONS = GOOD.replace(",", ";")
DEFAULT_MISSING = ["", "na", "n/a", "nan", "null", "none", "<na>"]
SHOWN_MISSING = '"", "na", "n/a", "nan", "null", "none", "<na>"'
CYRILLIC = HEADER.replace("\n", ",город\n") + "Иванов,1,1,1,Москва\nПетров,2,2,0,Казань\n"
CHINESE = HEADER.replace("\n", ",城市\n") + "张三,1,1,1,北京\n李四,2,2,0,上海\n"
JAPANESE = HEADER.replace("\n", ",まち\n") + "すずき,1,1,1,とうきょう\n"
WORDS = "holds words in 2 of 2 cells (the first in line 2), not finite numbers: declare "

WRONG_FILES: dict[str, WrongFile] = {
    "tabs": WrongFile(
        GOOD.replace(",", "\t"),
        f"{SEEMS}separated by tabs: " + _add('`delimiter = "\\t"`'),
        csv_entries(delimiter="\t"),
    ),
    "semicolons": WrongFile(
        SEMICOLONS, f"{SEEMS}separated by semicolons: " + _add('`delimiter = ";"`'), csv_entries(delimiter=";")
    ),
    "vertical bars": WrongFile(
        GOOD.replace(",", "|"),
        f"{SEEMS}separated by vertical bars: " + _add('`delimiter = "|"`'),
        csv_entries(delimiter="|"),
    ),
    "semicolons and decimal commas": WrongFile(
        HEADER.replace(",", ";") + "p;1,5;;1\nq;22,25;-3,5;0\n",
        f"{SEEMS}separated by semicolons, with other signs in its numbers: "
        + _add('`delimiter = ";"` and `decimal = ","`'),
        csv_entries(delimiter=";", decimal=","),
    ),
    "a header in another case": WrongFile(
        GOOD.replace("patient", "Patient")
        .replace("age", "Age")
        .replace("income", "Income")
        .replace("visited", "VISITED"),
        "column 'age': is missing; the header names 'Age': write this name in dataset.toml; "
        "column 'income': is missing; the header names 'Income': write this name in dataset.toml; "
        "column 'visited': is missing; the header names 'VISITED': write this name in dataset.toml; "
        "column 'patient': is missing; the header names 'Patient': write this name in dataset.toml",
        renamed,
    ),
    "spaces after commas": WrongFile(
        GOOD.replace(",", ", "),
        f"{SEEMS}a table with spaces around its cells: " + _add("`trim = true`"),
        csv_entries(trim=True),
    ),
    "spaces around cells alone": WrongFile(
        HEADER + "p, 50 ,1,1\n",
        "column 'age': 1 cell is (the first in line 2) not a finite number: " + _add("`trim = true`"),
        csv_entries(trim=True),
    ),
    "no header": WrongFile(
        GOOD.removeprefix(HEADER),
        f"{SEEMS}a table without a line of names: "
        + _add("`header = false` and `columns = [the names of its 4 columns, in order]`"),
        csv_entries(header=False, columns=NAMES),
    ),
    "no header, and semicolons": WrongFile(
        SEMICOLONS.split("\n", 1)[1],
        f"{SEEMS}separated by semicolons, a table without a line of names: "
        + _add('`delimiter = ";"` and `header = false` and `columns = [the names of its 4 columns, in order]`'),
        csv_entries(delimiter=";", header=False, columns=NAMES),
    ),
    "Excel's line sep=,": WrongFile(
        "sep=,\n" + GOOD,
        f"{SEEMS}a table with 1 line before its header: " + _add("`skip_rows = 1`"),
        csv_entries(skip_rows=1),
    ),
    "Excel's line sep=;": WrongFile(
        "sep=;\n" + SEMICOLONS,
        f"{SEEMS}separated by semicolons, a table with 1 line before its header: "
        + _add('`delimiter = ";"` and `skip_rows = 1`'),
        csv_entries(delimiter=";", skip_rows=1),
    ),
    "a title above the table": WrongFile(
        "Visits of the year\n\n" + GOOD,
        f"{SEEMS}a table with 2 lines before its header: " + _add("`skip_rows = 2`"),
        csv_entries(skip_rows=2),
    ),
    "UTF-16": WrongFile(
        GOOD.encode("utf-16"),
        f"{SEEMS}UTF-16 text, not UTF-8: " + _add('`encoding = "utf-16"`'),
        csv_entries(encoding="utf-16"),
    ),
    "UTF-16 without a mark": WrongFile(
        GOOD.encode("utf-16-le"),
        f"{SEEMS}UTF-16 text, not UTF-8: " + _add('`encoding = "utf-16-le"`'),
        csv_entries(encoding="utf-16-le"),
    ),
    "UTF-16 and tabs, Excel's Unicode text": WrongFile(
        GOOD.replace(",", "\t").encode("utf-16"),
        f"{SEEMS}UTF-16 text, not UTF-8, separated by tabs: " + _add('`encoding = "utf-16"` and `delimiter = "\\t"`'),
        csv_entries(encoding="utf-16", delimiter="\t"),
    ),
    "Windows-1251": WrongFile(
        CYRILLIC.encode("cp1251"),
        f"{SEEMS}Windows-1251 text (Cyrillic), not UTF-8: " + _add('`encoding = "cp1251"`'),
        csv_entries(encoding="cp1251"),
    ),
    "KOI8-R": WrongFile(
        CYRILLIC.encode("koi8-r"),
        f"{SEEMS}KOI8-R text (Cyrillic), not UTF-8: " + _add('`encoding = "koi8-r"`'),
        csv_entries(encoding="koi8-r"),
    ),
    "GB18030": WrongFile(
        CHINESE.encode("gb18030"),
        f"{SEEMS}GB18030 text (Chinese), not UTF-8: " + _add('`encoding = "gb18030"`'),
        csv_entries(encoding="gb18030"),
    ),
    "Shift JIS": WrongFile(
        JAPANESE.encode("cp932"),
        f"{SEEMS}Shift JIS text (Japanese), not UTF-8: " + _add('`encoding = "cp932"`'),
        csv_entries(encoding="cp932"),
    ),
    "Windows-1252": WrongFile(
        HEADER.encode() + "José,1,1,1\n".encode("cp1252"),
        f"{SEEMS}Windows-1252 text (Western European), not UTF-8: " + _add('`encoding = "cp1252"`'),
        csv_entries(encoding="cp1252"),
    ),
    "gzip": WrongFile(
        gzip.compress(GOOD.encode()),
        f"{SEEMS}gzip-compressed: " + _add('`compression = "gzip"`'),
        csv_entries(compression="gzip"),
    ),
    "gzip of semicolons": WrongFile(
        gzip.compress(SEMICOLONS.encode()),
        f"{SEEMS}gzip-compressed, separated by semicolons: " + _add('`compression = "gzip"` and `delimiter = ";"`'),
        csv_entries(compression="gzip", delimiter=";"),
    ),
    "an Excel workbook": WrongFile(
        _workbook(),
        f"{SEEMS}an Excel workbook (xlsx), not csv: save it as CSV in UTF-8, one table in one file",
    ),
    "an old Excel workbook": WrongFile(
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512),
        f"{SEEMS}an old Excel or SPSS workbook, not csv: save it as CSV in UTF-8, one table in one file",
    ),
    "a web page": WrongFile(
        "<!DOCTYPE html><html><body>Log in</body></html>",
        f"{SEEMS}a web page, not csv: save it as CSV in UTF-8, one table in one file",
    ),
    "JSON": WrongFile(
        '[{"patient": 1, "age": 5}]', f"{SEEMS}JSON, not csv: save it as CSV in UTF-8, one table in one file"
    ),
    "missing as a point": WrongFile(
        HEADER + "p,1,.,1\nq,2,2,0\n",
        "column 'income': 1 cell is (the first in line 2) not a finite number, but the spelling of a missing cell: "
        + _add(f'`missing = [{SHOWN_MISSING}, "."]`'),
        csv_entries(missing=[*DEFAULT_MISSING, "."]),
    ),
    "missing as a dash": WrongFile(
        HEADER + "p,1,-,1\nq,2,--,0\n",
        "column 'income': 2 cells are (the first in line 2) not a finite number, but the spelling of a missing cell: "
        + _add(f'`missing = [{SHOWN_MISSING}, "-", "--"]`'),
        csv_entries(missing=[*DEFAULT_MISSING, "-", "--"]),
    ),
    "missing as a database writes it": WrongFile(
        HEADER + "p,1,\\N,1\nq,2,2,0\n",
        "column 'income': 1 cell is (the first in line 2) not a finite number, but the spelling of a missing cell: "
        + _add(f'`missing = [{SHOWN_MISSING}, "\\\\N"]`'),
        csv_entries(missing=[*DEFAULT_MISSING, "\\N"]),
    ),
    "decimal commas in quotes": WrongFile(
        HEADER + 'p,"1,5",1,1\n',
        "column 'age': 1 cell is (the first in line 2) not a finite number: " + _add('`decimal = ","`'),
        csv_entries(decimal=","),
    ),
    "points between thousands": WrongFile(
        HEADER + 'p,"0.001.000,5",1,1\n',
        "column 'age': 1 cell is (the first in line 2) not a finite number: "
        + _add('`decimal = ","` and `thousands = "."`'),
        csv_entries(decimal=",", thousands="."),
    ),
    "spaces between thousands": WrongFile(
        HEADER + "p,1 000,1,1\nq,1\u00a0000,1,1\n",
        "column 'age': 2 cells are (the first in line 2) not a finite number: " + _add('`thousands = " "`'),
        csv_entries(thousands=" "),
    ),
    "apostrophes between thousands": WrongFile(
        HEADER + "p,1'000.5,1,1\n",
        "column 'age': 1 cell is (the first in line 2) not a finite number: " + _add('`thousands = "\'"`'),
        csv_entries(thousands="'"),
    ),
    "a comma of unknown meaning": WrongFile(
        HEADER + 'p,"1,234",1,1\n',
        "column 'age': 1 cell is (the first in line 2) not a finite number: write the one that holds, "
        '`thousands = ","` or `decimal = ","`, below [csv] of dataset.toml',
        csv_entries(thousands=","),
    ),
    "words in a feature": WrongFile(
        HEADER + "p,young,1,1\nq,old,1,1\n",
        f"column 'age': {WORDS}" + 'kind = "category" with its categories, or leave the column out',
        feature("age", {"name": "age", "kind": "category", "categories": ["young", "old"]}),
    ),
    "yes and no in a feature": WrongFile(
        HEADER + "p,Yes,1,1\nq,no,1,1\n",
        "column 'age': holds yes and no as words in 2 of 2 cells (the first in line 2), not finite numbers: declare "
        'kind = "boolean" in place of low and high',
        feature("age", {"name": "age", "kind": "boolean"}),
    ),
    "dates in a feature": WrongFile(
        HEADER + "p,24.12.1980,1,1\nq,01.02.1990,1,1\n",
        "column 'age': holds dates in 2 of 2 cells (the first in line 2), not finite numbers: declare "
        'kind = "date" with format = "%d.%m.%Y", and since or since_column',
        feature(
            "age",
            {
                "name": "age",
                "kind": "date",
                "format": "%d.%m.%Y",
                "since": "1980-01-01",
                "unit": "years",
                "low": 0,
                "high": 20,
            },
        ),
    ),
    "dates of two meanings": WrongFile(
        HEADER + "p,01/02/1990,1,1\n",
        "column 'age': holds dates in 1 of 1 cells (the first in line 2), not finite numbers: declare "
        'kind = "date" with format = "%d/%m/%Y" or "%m/%d/%Y", and since or since_column',
    ),
    "words as labels": WrongFile(
        HEADER + "p,1,1,healthy\nq,1,1,ill\n",
        f"column 'visited': {WORDS}values = [...], the spellings of the classes in order",
        label(values=["healthy", "ill"]),
    ),
    "classes from 1": WrongFile(
        HEADER + "p,1,1,1\nq,1,1,2\n",
        "column 'visited': 1 cell is (the first in line 3) not a whole number from 0 to 1; the classes seem to start "
        'at 1: write `values = ["1", "2"]` below [label] of dataset.toml',
        label(values=["1", "2"]),
    ),
    "a row cut short": WrongFile(
        HEADER + "p,1,1,1\nq,1,1\n", "the file is not a table: line 3 has 3 cells, the first row has 4"
    ),
    "a quote that never closes": WrongFile(
        HEADER + 'p,1,1,1\nq,"1,1,1\nr,1,1,1\n',
        "the file is not a table: a quotation mark opens a cell that no other mark closes, in data row 2 or before",
    ),
    "a column of another name": WrongFile(GOOD.replace("age", "years"), "column 'age': is missing"),
    "numbers with a unit": WrongFile(
        HEADER + "p,12 kg,1,1\n", "column 'age': 1 cell is (the first in line 2) not a finite number"
    ),
    "one person in two invisible spellings": WrongFile(
        HEADER + "p1,1,1,1\np\u200b1,1,1,1\n",
        "column 'patient': the same unit id is written in different ways: settle on one",
    ),
    "one person in exponent notation": WrongFile(
        HEADER + "1000,1,1,1\n1e3,1,1,1\n",
        "column 'patient': the same unit id is written in different ways: settle on one",
    ),
    "one person with an inner space": WrongFile(
        HEADER + "p 1,1,1,1\np1,1,1,1\n",
        "column 'patient': the same unit id is written in different ways: settle on one",
    ),
}
