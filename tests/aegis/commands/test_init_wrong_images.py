"""Wrong folders of images for ``aegis init``: one line, exit code 2, and nothing written."""

# ruff: noqa: E501 - one line a case

from __future__ import annotations

from pathlib import Path

import pytest

from tests.aegis.commands.conftest import invoke
from tests.aegis.commands.test_init_wrong_inputs import Content, Wrong, digests, one_line, write
from tests.support.owner_images import png

HEADER = "file,person,ill\n"
TABLE = HEADER + "".join(f"{row}.png,p{row},{row % 2}\n" for row in range(8))
OTHER = HEADER + "".join(f"{row}.png,q{row},{row % 2}\n" for row in range(8))
IMAGES: dict[str, Content] = {
    f"{site}/{row}.png": png(10 * place + row, 5, 6)
    for place, site in enumerate(("north", "south"))
    for row in range(8)
}
TWO: dict[str, Content] = {**IMAGES, "north/labels.csv": TABLE, "south/labels.csv": OTHER}
PLAIN = "--data north --data south/ --label ill --person person --yes"
PLAIN_FILE = "(ASCII letters, digits, '.', '_' and '-'; no folder, no link, no second name)"


def naming(name: str) -> dict[str, Content]:
    """Let the southern table's last row name another file."""
    return {**TWO, "south/labels.csv": OTHER.replace("7.png", name)}


def image(content: Content) -> dict[str, Content]:
    """Replace the southern site's last image."""
    return {**TWO, "south/7.png": content}


def without(*names: str) -> dict[str, Content]:
    return {name: content for name, content in TWO.items() if name not in names}


WRONG = [
    Wrong("no table", without("south/labels.csv"), PLAIN, "south holds no table of labels: put one CSV or Parquet file there, with the images' names"),
    Wrong("empty folder", {**TWO, "east/": None}, PLAIN + " --data east", "east holds no table of labels: put one CSV or Parquet file there, with the images' names"),
    Wrong("two tables", {**TWO, "south/more.csv": TABLE}, PLAIN, "south holds two tables, labels.csv and more.csv: keep the table of labels"),
    Wrong("empty table", {**TWO, "south/labels.csv": ""}, PLAIN, "south/labels.csv is empty"),
    Wrong("header only", {**TWO, "north/labels.csv": HEADER}, PLAIN, "north/labels.csv has a header and no rows"),
    Wrong("header only and named column", {**TWO, "south/labels.csv": HEADER}, PLAIN + " --image-column file", "south/labels.csv has a header and no rows"),
    Wrong("no label column", TWO, PLAIN.replace("ill", "il"), "north/labels.csv has no column 'il': did you mean 'ill'?"),
    Wrong("no person column", TWO, PLAIN.replace("person person", "person patient"), "north/labels.csv has no column 'patient': it has file, person, ill"),
    Wrong("no image column", TWO, PLAIN + " --image-column files", "north/labels.csv has no column 'files': did you mean 'file'?"),
    Wrong("no column of names", {**TWO, "south/labels.csv": OTHER.replace(".png", "")}, PLAIN, "south/labels.csv: no column names PNG or JPEG files in the first row: say which with --image-column"),
    Wrong("two columns of names", {**TWO, "south/labels.csv": "small," + OTHER.replace("\n", "\n0.png,").removesuffix("0.png,")}, PLAIN, "south/labels.csv: columns 'small' and 'file' both name PNG or JPEG files in the first row: say which with --image-column"),
    Wrong("image column is the label", TWO, PLAIN + " --image-column ill", "--label and --image-column both name the column 'ill': one role a column (see aegis init --help)"),
    Wrong("missing file", naming("8.png"), PLAIN, "south/labels.csv: line 9: the named file does not exist in south/"),
    Wrong("absolute path", naming("/etc/passwd"), PLAIN, f"south/labels.csv: line 9: the cell is not the name of a plain file in south/ {PLAIN_FILE}"),
    Wrong("path upwards", naming("../north/7.png"), PLAIN, f"south/labels.csv: line 9: the cell is not the name of a plain file in south/ {PLAIN_FILE}"),
    Wrong("path downwards", {**naming("more/7.png"), "south/more/7.png": png(1, 5, 6)}, PLAIN, f"south/labels.csv: line 9: the cell is not the name of a plain file in south/ {PLAIN_FILE}"),
    Wrong("empty name", naming(""), PLAIN, "south/labels.csv: line 9: the cell is empty"),
    Wrong("name twice", naming("6.png"), PLAIN, "south/labels.csv: line 9: an earlier row names the same image"),
    Wrong("folder in the image's place", {**without("south/7.png"), "south/7.png/": None}, PLAIN, f"south/labels.csv: line 9: the cell is not the name of a plain file in south/ {PLAIN_FILE}"),
    Wrong("another size", image(png(1, 5, 7)), PLAIN, "south/labels.csv: line 9: the image is grey, 7 wide and 5 high, the first one grey, 6 wide and 5 high: save all alike"),
    Wrong("another colour", image(png(1, 5, 6, 3)), PLAIN, "south/labels.csv: line 9: the image is RGB, 6 wide and 5 high, the first one grey, 6 wide and 5 high: save all alike"),
    Wrong("transparency", image(png(1, 5, 6, 4)), PLAIN, "south/labels.csv: line 9: the image is RGB with transparency: save it as 8-bit RGB"),
    Wrong("not an image", image("hello"), PLAIN, "south/labels.csv: line 9: the file is neither PNG nor JPEG"),
    Wrong("empty image", image(b""), PLAIN, "south/labels.csv: line 9: the file is neither PNG nor JPEG"),
    Wrong("image cut off", image(png(1, 5, 6)[:-20]), PLAIN, "south/labels.csv: line 9: the image is cut off, or the file goes on after its end"),
    Wrong("gif", image(png(1, 5, 6, form="GIF")), PLAIN, "south/labels.csv: line 9: the file is neither PNG nor JPEG"),
    Wrong("label of one class", {**TWO, **{f"{site}/labels.csv": TABLE.replace(",1\n", ",0\n") for site in ("north", "south")}}, PLAIN, "the label 'ill' has 1 value: that is no list of classes"),
    Wrong("label missing in a row", {**TWO, "south/labels.csv": OTHER.replace(",q7,1", ",q7,")}, PLAIN, "the label 'ill' is missing in 1 row: leave these rows out"),
    Wrong("person missing in a row", {**TWO, "south/labels.csv": OTHER.replace(",q7,", ",,")}, PLAIN, "south/labels.csv: line 9 has no person: fill the cell, or leave the row out"),
    Wrong("two folders and no image beside the table", {"north/labels.csv": TABLE, "north/a/0.png": png(1, 5, 6), "north/b/1.png": png(2, 5, 6)}, "--data north --label ill --yes", "north holds the folders a and b, and no image beside the table: put all into one folder"),
    Wrong("table beside folders", {**TWO, "east.csv": TABLE}, PLAIN + " --data east.csv", "east.csv is a file, and other data are folders of images: give folders alone"),
    Wrong("folder that is absent", TWO, PLAIN + " --data east", "east does not exist, and other data are folders of images: give folders alone"),
    Wrong("folder beside tables", {**TWO, "east.csv": TABLE}, "--data east.csv --data south --label ill --yes", "south is a folder: name a file in it"),
    Wrong("image column of a table", {**TWO, "east.csv": TABLE}, "--data east.csv --image-column file --label ill --yes", "east.csv is a file: --image-column goes with folders of images"),
    Wrong("one site", TWO, "--data north --label ill --yes --holdout 0", "a federation needs two sites: give --data for each site, or --site-column"),
    Wrong("held-out person at a site", {**TWO, "test/labels.csv": TABLE, "test/0.png": png(1, 5, 6)}, PLAIN + " --holdout test", "test/labels.csv: line 2: this row's person is in a site's file and in test: hold out others"),
    Wrong("held-out folder is a site's", TWO, PLAIN + " --holdout south", "--holdout south is a site's file: hold out other rows (see aegis init --help)"),
    Wrong("held-out table", {**TWO, "test.csv": TABLE}, PLAIN + " --holdout test.csv", "test.csv is a file, and other data are folders of images: give folders alone"),
    Wrong("holdout that takes no row", TWO, PLAIN + " --holdout 0.0001", "--holdout 0.0001 takes no row out of so few: hold out more, or 0"),
    Wrong("TabularResNet", TWO, PLAIN + " --model TabularResNet", "TabularResNet needs a table, got arrays of shape (1, 5, 6): take Linear or MLP"),
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.what.replace(" ", "-"))
def test_wrong_images_are_one_line_and_write_nothing(
    wrong: Wrong, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(wrong.files)
    before = digests()

    answer = invoke("init", wrong.name, *wrong.options.split())

    assert one_line(answer) == f"error: {wrong.answer}"
    assert digests() == before, "it wrote something"


@pytest.mark.parametrize("second_name", ["symbolic", "hard"])
def test_a_linked_image_is_refused(second_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(without("south/7.png"))
    linked, other = Path("south/7.png"), Path("north/7.png").resolve()
    linked.symlink_to(other) if second_name == "symbolic" else linked.hardlink_to(other)

    answer = invoke("init", "study", *PLAIN.split())

    place = "south/labels.csv: line 9" if second_name == "symbolic" else "north/labels.csv: line 9"
    assert one_line(answer).startswith(f"error: {place}: the cell is not the name of a plain file")
    assert not Path("study").exists()
