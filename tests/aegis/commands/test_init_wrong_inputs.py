"""Wrong inputs of ``aegis init`` and ``aegis run STUDY``: one line, exit code 2, and nothing written."""

# ruff: noqa: E501 - one line a case

from __future__ import annotations

import gzip
import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from click.testing import Result

from tests.aegis.commands.conftest import invoke

Content = str | bytes | None


def table(site: int, rows: int = 12, header: str = "patient,age,dose,sick") -> str:
    lines = [f"{site}-{number},{20 + number},{number % 5}.5,{number % 2}" for number in range(rows)]
    return "\n".join([header, *lines]) + "\n"


def archive(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        for name in names:
            packed.writestr(name, "x")
    return file.getvalue()


NORTH, SOUTH = table(1), table(2)
X, Y = np.zeros((6, 4), np.float32), np.array([0, 1] * 3)
TWO = {"north.csv": NORTH, "south.csv": SOUTH}
PLAIN = "--data north.csv --data south.csv --label sick --person patient --yes"
ONE = "--data one.csv --label sick --site-column site --yes"
NUMPY = "--data north.npz --data south.npz --label y --yes"


def changed(before: str, after: str) -> dict[str, Content]:
    """Change the last line of the southern file that holds ``before``."""
    assert before in SOUTH
    head, _, tail = SOUTH.rpartition(before)
    return {**TWO, "south.csv": head + after + tail}


def sites_of(*names: str) -> dict[str, Content]:
    lines = [f"{name},{number},{number % 2}" for number, name in enumerate(names)]
    return {"one.csv": "\n".join(["site,age,sick", *lines]) + "\n"}


def lived(time: str, event: str) -> dict[str, Content]:
    rows = "\n".join(f"{number},{time if number == 3 else number},{event if number == 3 else 1}" for number in range(9))
    return {"north.csv": f"age,days,died\n{rows}\n", "south.csv": "age,days,died\n5,6,0\n7,8,1\n"}


SURVIVAL = "--data north.csv --data south.csv --label days --task survival --yes --holdout 0"


class Wrong(NamedTuple):
    what: str
    files: Mapping[str, Content]
    options: str
    answer: str
    name: str = "study"


WRONG = [
    Wrong("missing file", TWO, PLAIN + " --data east.csv", 'east.csv does not exist: check the path'),
    Wrong("folder", {**TWO, "east/": None}, PLAIN + " --data east", 'east is a folder: name a file in it'),
    Wrong("empty file", {**TWO, "east.csv": ""}, PLAIN + " --data east.csv", 'east.csv is empty'),
    Wrong("blank file", {**TWO, "east.csv": "\n\n"}, PLAIN + " --data east.csv", 'east.csv is empty'),
    Wrong("header only", {**TWO, "east.csv": "patient,age,dose,sick\n"}, PLAIN + " --data east.csv", 'east.csv has a header and no rows'),
    Wrong("mistyped label", TWO, PLAIN.replace("sick", "sik"), "north.csv has no column 'sik': did you mean 'sick'?"),
    Wrong("label far from any column", TWO, PLAIN.replace("sick", "outcome"), "north.csv has no column 'outcome': it has patient, age, dose, sick"),
    Wrong("label with one value", {k: v.replace(",1\n", ",0\n") for k, v in TWO.items()}, PLAIN, "the label 'sick' has 1 value: that is no list of classes"),
    Wrong("label of many words", {"north.csv": "age,sick\n" + "".join(f"1,w{n}\n" for n in range(30)), "south.csv": "age,sick\n1,a\n"}, "--data north.csv --data south.csv --label sick --yes", "the label 'sick' has more than 20 values: that is no list of classes"),
    Wrong("label missing in a row", changed("1.5,1", "1.5,"), PLAIN, "the label 'sick' is missing in 1 row: leave these rows out"),
    Wrong("text label with regression", changed("1.5,1", "1.5,yes"), PLAIN + " --task regression", "the label 'sick' holds words, and the task needs numbers"),
    Wrong("count of fractions", changed("1.5,1", "1.5,1.5"), PLAIN + " --task count", "the label 'sick' is no count: counts are whole numbers from 0"),
    Wrong("binary with three classes", changed("1.5,1", "1.5,2"), PLAIN + " --task binary", "the label 'sick' makes a multiclass task, and --task says binary"),
    Wrong("multiclass with two classes", TWO, PLAIN + " --task multiclass", "the label 'sick' makes a binary task, and --task says multiclass"),
    Wrong("several labels without multilabel", TWO, PLAIN + " --label dose", 'several --label go with --task multilabel (see aegis init --help)'),
    Wrong("multilabel of numbers", TWO, PLAIN + " --label dose --task multilabel", "the label 'dose' is not of yes and no: each of several labels has to be"),
    Wrong("multilabel of one", TWO, PLAIN + " --task multilabel", 'several labels need several columns: name each, or take the task of classes'),
    Wrong("one site", TWO, "--data north.csv --label sick --yes", 'a federation needs two sites: give --data for each site, or --site-column'),
    Wrong("one name twice", {**TWO, "sub/north.csv": NORTH}, "--data north.csv --data sub/north.csv --label sick --yes", "two files would be the site 'north': give each file a name of its own"),
    Wrong("same file twice", TWO, "--data north.csv --data north.csv --label sick --yes", "two files would be the site 'north': give each file a name of its own"),
    Wrong("file named like the held-out rows", {**TWO, "held-out.csv": NORTH}, PLAIN + " --data held-out.csv", "no site can be named 'held-out': use letters or digits, and not 'held-out'"),
    Wrong("other columns", {**TWO, "east.csv": table(3, header="patient,age,weight,sick")}, PLAIN + " --data east.csv", "east.csv has no column 'dose' and has a column 'weight' that the first file lacks: all files need the same columns"),
    Wrong("column twice", {**TWO, "east.csv": table(3, header="patient,age,age,sick")}, PLAIN + " --data east.csv", "east.csv has the column 'age' twice: rename one"),
    Wrong("ragged row", changed("1.5,1", "1.5,1,9"), PLAIN, 'south.csv: line 13 has 5 cells, the header 4: mend it'),
    Wrong("short row", changed("1.5,1", "1.5"), PLAIN, 'south.csv: line 13 has 3 cells, the header 4: mend it'),
    Wrong("xlsx", {**TWO, "east.xlsx": zipped("[Content_Types].xml", "xl/workbook.xml")}, PLAIN + " --data east.xlsx", 'east.xlsx seems to be an Excel workbook (xlsx): save it as CSV in UTF-8, one table in one file'),
    Wrong("pdf", {**TWO, "east.pdf": b"%PDF-1.7\n%\xe2\xe3\n1 0 obj"}, PLAIN + " --data east.pdf", 'east.pdf seems to be a PDF document: save it as CSV in UTF-8, one table in one file'),
    Wrong("png", {**TWO, "east.png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"}, PLAIN + " --data east.png", 'east.png is not text: save it as CSV in UTF-8, or as Parquet'),
    Wrong("zip", {**TWO, "east.zip": zipped("rows.csv")}, PLAIN + " --data east.zip", 'east.zip seems to be a zip archive: unpack it'),
    Wrong("safetensors", {**TWO, "east.safetensors": b"\x02\0\0\0\0\0\0\0{}"}, PLAIN + " --data east.safetensors", 'east.safetensors seems to be safetensors: save it as npz with the arrays x and y'),
    Wrong("sqlite", {**TWO, "east.db": b"SQLite format 3\0" + bytes(90)}, PLAIN + " --data east.db", 'east.db seems to be an SQLite database: save it as CSV in UTF-8, one table in one file'),
    Wrong("binary nonsense", {**TWO, "east.csv": bytes(range(256)) * 4}, PLAIN + " --data east.csv", 'east.csv is not text: save it as CSV in UTF-8, or as Parquet'),
    Wrong("Parquet cut off", {**TWO, "east.parquet": b"PAR1" + bytes(40)}, PLAIN + " --data east.parquet", 'east.parquet is not whole Parquet: save it again'),
    Wrong("gzip cut off", {**TWO, "east.csv.gz": gzip.compress(NORTH.encode())[:-20]}, PLAIN + " --data east.csv.gz", 'east.csv.gz is cut off or damaged: pack it again'),
    Wrong("gzip of nothing", {**TWO, "east.csv.gz": gzip.compress(b"")}, PLAIN + " --data east.csv.gz", "east.csv.gz has no column 'sick': it has no columns"),
    Wrong("holdout 1", TWO, PLAIN + " --holdout 1", '--holdout must be at least 0 and below 1, got 1 (see aegis init --help)'),
    Wrong("holdout 1.5", TWO, PLAIN + " --holdout 1.5", '--holdout must be at least 0 and below 1, got 1.5 (see aegis init --help)'),
    Wrong("holdout below 0", TWO, PLAIN + " --holdout -0.1", '--holdout must be at least 0 and below 1, got -0.1 (see aegis init --help)'),
    Wrong("holdout nan", TWO, PLAIN + " --holdout nan", '--holdout must be at least 0 and below 1, got nan (see aegis init --help)'),
    Wrong("holdout text", TWO, PLAIN + " --holdout some", "--holdout takes a share such as 0.2, or a file: 'some' is neither (see aegis init --help)"),
    Wrong("holdout that empties a site", {**TWO, "east.csv": table(3, rows=1)}, PLAIN + " --data east.csv --holdout 0.999", "--holdout 0.999 leaves the site 'east' without rows: hold out fewer"),
    Wrong("holdout that takes no row", TWO, PLAIN + " --holdout 0.0001", '--holdout 0.0001 takes no row out of so few: hold out more, or 0'),
    Wrong("held-out person at a site", {**TWO, "test.csv": table(2)}, PLAIN + " --holdout test.csv", "test.csv: line 2: this row's patient is in a site's file and in test.csv: hold out others"),
    Wrong("held-out row at a site", {**TWO, "test.csv": table(9) + SOUTH.splitlines()[3] + "\n"}, PLAIN.replace("--person patient", "") + " --holdout test.csv", "test.csv: line 14 equals south.csv: line 4: hold out other rows, or name persons with --person"),
    Wrong("held-out row in the file of all sites", {**sites_of("north", "south", "north"), "test.csv": "sick,age\n1,9\n0,2\n"}, ONE + " --holdout test.csv", "test.csv: line 3 equals one.csv: line 4: hold out other rows, or name persons with --person"),
    Wrong("held-out file without the label", {**TWO, "test.csv": table(9, header="patient,age,dose,ill")}, PLAIN + " --holdout test.csv", "test.csv has no column 'sick': it has patient, age, dose, ill"),
    Wrong("held-out file is a site's file", TWO, PLAIN.replace("--person patient", "") + " --holdout north.csv", "--holdout north.csv is a site's file: hold out other rows (see aegis init --help)"),
    Wrong("held-out file over real sites", {**TWO, "test.csv": table(9), "clinics/": None}, PLAIN + " --holdout test.csv --federation clinics", "--holdout test.csv with real sites: dictionary.toml, which every site gets, would tell values of its rows; declare them public with --public-holdout, or leave --holdout out (see aegis init --help)"),
    Wrong("held-out file over new real sites", {**TWO, "test.csv": table(9)}, PLAIN + " --holdout test.csv --profile unattested", "--holdout test.csv with real sites: dictionary.toml, which every site gets, would tell values of its rows; declare them public with --public-holdout, or leave --holdout out (see aegis init --help)"),
    Wrong("public rows without real sites", {**TWO, "test.csv": table(9)}, PLAIN + " --holdout test.csv --public-holdout", "--public-holdout goes with --holdout FILE and real sites: a simulation's rows are public (see aegis init --help)"),
    Wrong("public rows without a file", TWO, PLAIN + " --public-holdout --profile unattested", "--public-holdout goes with --holdout FILE and real sites: a simulation's rows are public (see aegis init --help)"),
    Wrong("person column absent", TWO, PLAIN.replace("patient", "patiant"), "north.csv has no column 'patiant': did you mean 'patient'?"),
    Wrong("person missing in a row", changed("2-11,", ","), PLAIN, 'south.csv: line 13 has no patient: fill the cell, or leave the row out'),
    Wrong("person in two groups", {**TWO, "south.csv": SOUTH + "2-11,40,9.5,1\n"}, PLAIN + " --group dose", "south.csv: line 14: this row's patient has rows in two groups of 'dose': settle on one"),
    Wrong("person is the label", TWO, PLAIN.replace("patient", "sick"), "--label and --person both name the column 'sick': one role a column (see aegis init --help)"),
    Wrong("site column with one value", sites_of("north", "north"), ONE + " --holdout 0", 'a federation needs two sites: give --data for each site, or --site-column'),
    Wrong("site column with 200 values", sites_of(*(f"s{n}" for n in range(200))), ONE, "'site' has more than 100 values: that is no column of sites"),
    Wrong("site column with an empty cell", sites_of("north", "south", ""), ONE, 'one.csv: line 4 has no site: every row needs its site'),
    Wrong("site column in two spellings", sites_of("north", "South", "south"), ONE, "'site' spells one site in two ways, 'South' and 'south': settle on one"),
    Wrong("site column of signs", sites_of("north", "???"), ONE, "no site can be named '???': use letters or digits, and not 'held-out'"),
    Wrong("site column absent", sites_of("north", "south"), ONE.replace("column site", "column sites"), "one.csv has no column 'sites': did you mean 'site'?"),
    Wrong("site column is the label", sites_of("north", "south"), ONE.replace("column site", "column sick"), "--label and --site-column both name the column 'sick': one role a column (see aegis init --help)"),
    Wrong("no feature is left", {"north.csv": "sick\n1\n0\n", "south.csv": "sick\n1\n0\n"}, "--data north.csv --data south.csv --label sick --yes --holdout 0", 'no column is left to learn from: there is none but the label'),
    Wrong("mistyped option", TWO, PLAIN + " --persn x", "No such option '--persn'. Did you mean '--person'? (see aegis init --help)"),
    Wrong("no data", TWO, "--label sick --yes", "Missing option '--data'. (see aegis init --help)"),
    Wrong("no label", TWO, "--data north.csv --yes", "Missing option '--label'. (see aegis init --help)"),
    Wrong("unknown task", TWO, PLAIN + " --task binery", "Invalid value for '--task': 'binery' is not one of 'binary', 'multiclass', 'multilabel', 'regression', 'count', 'survival'. Did you mean 'binary'? (see aegis init --help)"),
    Wrong("unknown model", TWO, PLAIN + " --model cnn2", "Invalid value for '--model': 'cnn2' is not one of 'Linear', 'MLP', 'TabularResNet', 'CNN'. Did you mean 'CNN'? (see aegis init --help)"),
    Wrong("folder not empty", {**TWO, "study/notes.txt": "mine"}, PLAIN, 'study exists: choose another folder; `aegis run study` runs the study in it'),
    Wrong("file in the study's place", {**TWO, "study": "mine"}, PLAIN, 'study exists: choose another folder; `aegis run study` runs the study in it'),
    Wrong("folder below a file", {**TWO, "notes.txt": "mine"}, PLAIN, 'notes.txt/study cannot be made: Not a directory', name="notes.txt/study"),
    Wrong("name without a letter", TWO, PLAIN, "no study can be named '...': use letters or digits (see aegis init --help)", name="..."),
    Wrong("name too long", TWO, PLAIN, 'ssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssssss: File name too long', name="s" * 300),
    Wrong("event without survival", TWO, PLAIN + " --event dose", '--event and --cuts go with --task survival, which needs --event (see aegis init --help)'),
    Wrong("survival without event", lived("3", "1"), SURVIVAL, '--event and --cuts go with --task survival, which needs --event (see aegis init --help)'),
    Wrong("cuts without survival", TWO, PLAIN + " --cuts 1,2", '--event and --cuts go with --task survival, which needs --event (see aegis init --help)'),
    Wrong("cuts that do not increase", lived("3", "1"), SURVIVAL + " --event died --cuts 5,3", "--cuts must increase from above 0, to 1e+09 at most, got '5,3' (see aegis init --help)"),
    Wrong("cuts of text", lived("3", "1"), SURVIVAL + " --event died --cuts soon", "--cuts takes numbers such as 30,90,365, got 'soon' (see aegis init --help)"),
    Wrong("cuts not finite", lived("3", "1"), SURVIVAL + " --event died --cuts 1,inf", "--cuts must increase from above 0, to 1e+09 at most, got '1,inf' (see aegis init --help)"),
    Wrong("cuts nan", lived("3", "1"), SURVIVAL + " --event died --cuts nan", "--cuts must increase from above 0, to 1e+09 at most, got 'nan' (see aegis init --help)"),
    Wrong("cuts nan among others", lived("3", "1"), SURVIVAL + " --event died --cuts 1,nan,3", "--cuts must increase from above 0, to 1e+09 at most, got '1,nan,3' (see aegis init --help)"),
    Wrong("cuts beyond any time", lived("3", "1"), SURVIVAL + " --event died --cuts 1,2e9", "--cuts must increase from above 0, to 1e+09 at most, got '1,2e9' (see aegis init --help)"),
    Wrong("too many cuts", lived("3", "1"), SURVIVAL + " --event died --cuts " + ",".join(map(str, range(1, 1002))), "--cuts takes 1000 numbers at most, got 1001 (see aegis init --help)"),
    Wrong("npz without x", {"north.npz": archive(y=Y), "south.npz": archive(x=X, y=Y)}, NUMPY, 'north.npz holds y: it needs x and y, and may have unit'),
    Wrong("npz of other shapes", {"north.npz": archive(x=X, y=Y), "south.npz": archive(x=X[:, :3], y=Y)}, NUMPY + " --holdout 0", 'the files differ in their arrays or their shapes: all need the same'),
    Wrong("npz of unequal length", {"north.npz": archive(x=X, y=Y[:5]), "south.npz": archive(x=X, y=Y)}, NUMPY, 'north.npz: x, y and unit need the same number of examples, at least one'),
    Wrong("npz with pickled objects", {"north.npz": archive(x=np.array([{}] * 6, object), y=Y), "south.npz": archive(x=X, y=Y)}, NUMPY, 'north.npz is no whole npz archive of numbers: save x and y with numpy.savez'),
    Wrong("npz of one number each", {"north.npz": archive(x=X[:, 0], y=Y), "south.npz": archive(x=X[:, 0], y=Y)}, NUMPY, 'north.npz: x has one number for each example: save x.reshape(-1, 1), of shape (n, 1)'),
    Wrong("npz not finite", {"north.npz": archive(x=X + np.inf, y=Y), "south.npz": archive(x=X, y=Y)}, NUMPY, 'north.npz: x, y and unit need finite numbers'),
    Wrong("npz of one class", {"north.npz": archive(x=X, y=0 * Y), "south.npz": archive(x=X, y=0 * Y)}, NUMPY + " --holdout 0", 'the label y is no list of classes: it needs whole numbers from 0, two at least'),
    Wrong("npz cut off", {"north.npz": archive(x=X, y=Y)[:200], "south.npz": archive(x=X, y=Y)}, NUMPY, 'north.npz is no whole npz archive of numbers: save x and y with numpy.savez'),
    Wrong("npz beside a table", {"north.npz": archive(x=X, y=Y), "south.csv": SOUTH}, "--data north.npz --data south.csv --label y --yes", 'south.csv is no whole npz archive of numbers: save x and y with numpy.savez'),
    Wrong("table beside npz", {"north.npz": archive(x=X, y=Y), "south.csv": SOUTH}, "--data south.csv --data north.npz --label sick --yes", 'north.npz holds arrays, and other files hold tables: give files of one kind'),
    Wrong("npz with a person column", {"north.npz": archive(x=X, y=Y), "south.npz": archive(x=X, y=Y)}, NUMPY + " --person unit --holdout 0", 'arrays have no columns: name persons by the array unit, and give one file a site'),
    Wrong("npz held-out person at a site", {n: archive(x=X, y=Y, unit=np.arange(6) + k) for k, n in ((0, "north.npz"), (10, "south.npz"), (5, "test.npz"))}, NUMPY + " --holdout test.npz", "test.npz and the site 'north' share a person (unit): hold out others"),
    Wrong("npz held-out example at a site", {"north.npz": archive(x=X + 1, y=Y), "south.npz": archive(x=np.arange(24.0).reshape(6, 4), y=Y), "test.npz": archive(x=np.arange(8, 20, dtype=np.float32).reshape(3, 4), y=np.array([5, 1, 7]))}, NUMPY + " --holdout test.npz", "test.npz and south.npz share 1 equal example (the first is number 2 of test.npz): hold out others, or name persons by the array unit"),
    Wrong("CNN on a table", TWO, PLAIN + " --model CNN", 'CNN needs arrays of shape (channels, height, width), got (2,): take Linear or MLP'),
    Wrong("no header without columns", TWO, PLAIN + " --no-header", '--no-header and --columns go together: name every column in order (see aegis init --help)'),
    Wrong("columns without no header", TWO, PLAIN + " --columns a,b,c,d", '--no-header and --columns go together: name every column in order (see aegis init --help)'),
    Wrong("columns of another number", TWO, PLAIN + " --no-header --columns patient,age,sick", 'north.csv has rows of 4 cells, and 3 columns are named: name each'),
    Wrong("columns twice", TWO, PLAIN + " --no-header --columns patient,age,age,sick", 'the names of columns for north.csv: must name each of its columns once'),
    Wrong("no header said", {k: v.partition("\n")[2] for k, v in TWO.items()}, PLAIN, "north.csv has no line of names with 'sick' and 'patient': its first line holds numbers (--no-header --columns a,b,c names the columns of such a file)"),
    Wrong("no terminal to ask", TWO, PLAIN.replace(" --yes", ""), 'nobody can be asked here: review on a terminal, or take all suggestions with --yes (see aegis init --help)'),
    Wrong("epsilon 0", TWO, PLAIN + " --epsilon 0", "Invalid value for '--epsilon': 0.0 is not in the range 0<x<=1000. (see aegis init --help)"),
    Wrong("epsilon nan", TWO, PLAIN + " --epsilon nan", 'target_epsilon must be in (0, 1000], got nan'),
    Wrong("rounds 0", TWO, PLAIN + " --rounds 0", "Invalid value for '--rounds': 0 is not in the range 1<=x<=10000. (see aegis init --help)"),
    Wrong("federation absent", TWO, PLAIN + " --federation other", "Invalid value for '--federation': Directory 'other' does not exist. (see aegis init --help)"),
    Wrong("federation of nothing", {**TWO, "other/": None}, PLAIN + " --federation other", 'other is not a federation folder: cannot read other/federation.toml: No such file or directory'),
]  # fmt: skip


def write(files: Mapping[str, Content]) -> None:
    for name, content in files.items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)


def digests() -> dict[str, str]:
    """What is in the current folder, and what it holds."""
    return {
        str(path): "folder" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path().rglob("*"))
    }


def one_line(answer: Result) -> str:
    assert answer.exit_code == 2, (answer.exit_code, answer.output, answer.exception)
    assert answer.stdout == ""
    head, line, *more = [*answer.stderr.strip().splitlines(), ""][:3]
    assert not line, answer.stderr
    assert not any(more), answer.stderr
    return head


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.what.replace(" ", "-"))
def test_wrong_input_is_one_line_and_writes_nothing(
    wrong: Wrong, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(wrong.files)
    before = digests()

    answer = invoke("init", wrong.name, *wrong.options.split())

    assert one_line(answer) == f"error: {wrong.answer}"
    assert digests() == before, "it wrote something"


def test_holding_nothing_out_is_no_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(TWO)
    assert invoke("init", "study", *PLAIN.split(), "--holdout", "0").exit_code == 0
    assert not Path("study/held-out").exists()


def test_held_out_rows_that_are_declared_public_are_taken_over_real_sites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write({**TWO, "test.csv": table(9)})
    options = "--holdout test.csv --public-holdout --profile unattested"

    answer = invoke("init", "study", *PLAIN.split(), *options.split())

    assert answer.exit_code == 0, answer.output
    assert "test.csv, declared public: measure a run with aegis evaluate RUN ROWS.csv\n" in answer.stdout
    assert not list(Path("study").rglob("*.csv")), "a row was copied"
