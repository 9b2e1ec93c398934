"""Rows of the owner's files fall on one side each, and no person or group on two."""

from __future__ import annotations

import csv
import random
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aegis.errors import InvalidStudy
from aegis.studies.splitting import HELD_OUT, SplitPlan, is_held_out, site_name, split_rows

Row = tuple[str, str, str, str]
NAMES = ["person", "family", "age", "sick"]

rows = st.lists(
    st.tuples(
        st.integers(0, 30).map(lambda n: f"p{n}"),
        st.just(""),
        st.integers(0, 99).map(str),
        st.sampled_from("01"),
    ),
    min_size=4,
    max_size=60,
).map(lambda found: [(person, f"f{int(person[1:]) // 3}", age, sick) for person, _, age, sick in found])


def split(files: dict[str, list[Row]], **choices: object) -> dict[str, list[Row]]:
    """Return the rows of each part; the empty dictionary where the split was refused."""
    with TemporaryDirectory() as folder:
        root = Path(folder)
        for name, content in files.items():
            with (root / f"{name}.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(NAMES)
                writer.writerows(content)
        plan = {"person": "person", "site_column": None, "share": 0.3, **choices}
        try:
            seen = split_rows(SplitPlan([root / f"{name}.csv" for name in files], "sick", **plan), root / "out")  # type: ignore[arg-type]
        except InvalidStudy:
            return {}
        parts = {}
        for part in seen.rows:
            with (root / "out" / f"{part}.csv").open(newline="") as file:
                header, *found = csv.reader(file)
            parts[part] = [tuple(dict(zip(header, row, strict=True)).get(name, "") for name in NAMES) for row in found]
        return parts  # type: ignore[return-value]


@settings(max_examples=40, deadline=None)
@given(north=rows, south=rows)
def test_no_row_is_lost_and_no_person_is_on_two_sides(north: list[Row], south: list[Row]) -> None:
    parts = split({"north": north, "south": south})
    if not parts:
        return
    assert Counter(row for part in parts.values() for row in part) == Counter([*north, *south])
    held_out = {row[0] for row in parts.get(HELD_OUT, ())}
    assert held_out & {row[0] for part, found in parts.items() if part != HELD_OUT for row in found} == set()


@settings(max_examples=25, deadline=None)
@given(north=rows, south=rows, seed=st.integers(0, 99))
def test_the_order_of_rows_and_files_decides_nothing(north: list[Row], south: list[Row], seed: int) -> None:
    shuffled = {"south": [*south], "north": [*north]}
    for found in shuffled.values():
        random.Random(seed).shuffle(found)

    before, after = split({"north": north, "south": south}), split(shuffled)

    assert {part: Counter(found) for part, found in before.items()} == {p: Counter(f) for p, f in after.items()}


@settings(max_examples=25, deadline=None)
@given(north=rows, south=rows)
def test_a_family_stays_together_and_is_no_feature(north: list[Row], south: list[Row]) -> None:
    parts = split({"north": north, "south": south}, group="family")
    family = {row[0]: row[1] for row in [*north, *south]}
    held_out = {family[row[0]] for row in parts.get(HELD_OUT, ())}

    assert held_out & {family[row[0]] for part, found in parts.items() if part != HELD_OUT for row in found} == set()
    assert all(row[1] == "" for found in parts.values() for row in found)


@settings(max_examples=25, deadline=None)
@given(north=rows, south=rows)
def test_the_groups_of_the_held_out_rows_are_known_in_their_order(north: list[Row], south: list[Row]) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        for name, content in {"north": north, "south": south}.items():
            with (root / f"{name}.csv").open("w", newline="") as file:
                csv.writer(file).writerows([NAMES, *content])
        plan = SplitPlan([root / "north.csv", root / "south.csv"], "sick", "person", None, 0.3, group="family")
        try:
            groups = split_rows(plan, root / "out").groups
        except InvalidStudy:
            return
        with (root / "out" / f"{HELD_OUT}.csv").open(newline="") as file:
            families = [int(row["person"][1:]) // 3 for row in csv.DictReader(file)]

    assert len(groups) == len(families)
    pairs = set(zip(groups, families, strict=True))
    assert len(pairs) == len(set(groups)) == len(set(families))


def test_spellings_of_one_person_fall_on_one_side() -> None:
    north: list[Row] = [(text, "f", str(age), "1") for age, text in enumerate(["7", "007", " 7", "7.0"] * 3)]
    others: list[Row] = [(f"{number}", "f", "1", str(number % 2)) for number in range(8, 60)]
    parts = split({"north": [*north, *others], "south": others})

    assert len({part for part, found in parts.items() for row in found if row[0].strip() in {"7", "007", "7.0"}}) == 1


def test_about_the_share_of_all_ids_is_held_out() -> None:
    share = sum(is_held_out(f"person {number}", 0.2) for number in range(20_000)) / 20_000

    assert 0.19 < share < 0.21  # over three standard deviations


@pytest.mark.parametrize(
    ("text", "name"), [("North", "north"), ("  St. Mary's ", "st.-mary-s"), ("a/../b", "a-..-b"), ("Ärzte 1", "rzte-1")]
)
def test_a_site_is_named_by_letters_and_digits(text: str, name: str) -> None:
    assert site_name(text) == name


@given(text=st.text(max_size=80))
def test_a_sites_name_is_a_plain_folder_name_or_refused(text: str) -> None:
    try:
        name = site_name(text)
    except InvalidStudy:
        return
    assert name not in {".", "..", HELD_OUT}
    assert "/" not in name
    assert not name.startswith((".", "-"))
