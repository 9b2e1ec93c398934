"""Edits of ``site.toml`` over files of many forms: the edit is made exactly, and every other word and comment stays."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from coreason_enclave.crypto import Signer
from coreason_enclave.errors import ConfigurationError
from coreason_enclave.policy import LineagePolicy, load_site_config
from coreason_enclave.site.policy_edits import add_lineage, add_participant, allow_model, raise_cap
from tests.conftest import SmallFederation

MODELS = ("Linear", "MLP", "CNN", "TabularResNet")
words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=12)
caps = st.floats(1, 400, allow_nan=False).map(lambda cap: round(cap, 3))
names = st.from_regex(r"\A[a-z][a-z0-9-]{0,8}\Z")
Document = dict[str, Any]
QUICK = settings(max_examples=20, deadline=None, phases=[Phase.explicit, Phase.generate])
"""Without shrinking: drawing and editing a whole file again a thousand times takes minutes."""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    """``site.toml`` of a founded site, as a program wrote it."""
    site = SmallFederation(tmp_path_factory.mktemp("sites")).create()
    return (site.folder / "site.toml").read_text()


@st.composite
def decorated(draw: st.DrawFn, text: str) -> str:
    """Draw the same file as a person might keep it: remarks, empty lines, other spaces, further lineages."""
    lines = text.splitlines()
    for number in range(draw(st.integers(0, 2))):
        epsilon = draw(caps)
        lines += [
            "[[lineages]]",
            f'lineage = "other/{number}"',
            f'dataset_id = "other/rows-{number}"',
            'unit = "person"',
            f"nominal_units = {draw(st.integers(1, 9999))}",
            "public = true",
            f"epsilon = {epsilon}",
            "delta = 1e-5",
            f"job_epsilon = {min(epsilon, draw(caps))}",
            "job_delta = 1e-5",
        ]
    found = []
    for line in lines:
        found += [f"# {draw(words)}" for _ in range(draw(st.sampled_from([0, 0, 0, 1])))]
        found += [""] * draw(st.sampled_from([0, 0, 0, 1]))
        spaced = line.replace(" = ", draw(st.sampled_from([" = ", "=", "   =  "])), 1)
        found.append(f"{spaced}  # {draw(words)}" if draw(st.sampled_from([False, False, True])) else spaced)
    return "\n".join(found) + draw(st.sampled_from(["", "\n", "\n\n# the last line\n"]))


@contextmanager
def folder_with(text: str) -> Iterator[Path]:
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "site.toml").write_text(text, encoding="utf-8")
        yield folder


def changes(before: str, after: str) -> tuple[list[str], list[str]]:
    """The lines that went, and the lines that came."""
    compared = list(difflib.ndiff(before.splitlines(), after.splitlines()))
    return [line[2:] for line in compared if line[:1] == "-"], [line[2:] for line in compared if line[:1] == "+"]


def edited(text: str, act: Callable[[Path], object], change: Callable[[Document], object]) -> tuple[str, str]:
    """Make the edit; return the text before and after once the whole document reads as expected."""
    expected = tomllib.loads(text)
    change(expected)
    with folder_with(text) as folder:
        act(folder)
        after = (folder / "site.toml").read_text(encoding="utf-8")
        assert tomllib.loads(after) == expected
        assert load_site_config(folder / "site.toml")
        assert len((folder / "audit.jsonl").read_text().splitlines()) == 1
    return text, after


def remark(line: str) -> str:
    return line.partition("#")[2]


def bare(line: str) -> str:
    return line.partition("#")[0].strip(" ,")


@QUICK
@given(data=st.data())
def test_a_raised_cap_changes_its_own_lines_and_keeps_their_remarks(plain: str, data: st.DataObject) -> None:
    text = data.draw(decorated(plain))
    lineages = tomllib.loads(text)["lineages"]
    place = data.draw(st.integers(0, len(lineages) - 1))
    known = lineages[place]
    higher = {name: data.draw(st.floats(known[name], 900).filter(lambda cap: cap > 0)) for name in ("epsilon",)}
    if data.draw(st.booleans()):
        higher["job_epsilon"] = data.draw(st.floats(known["job_epsilon"], higher["epsilon"]))
    rises = [name for name, cap in higher.items() if cap > known[name]]
    if not rises:
        return

    before, after = edited(
        text,
        lambda folder: raise_cap(folder, known["lineage"], higher, "agreed"),
        lambda document: document["lineages"][place].update(higher),
    )

    went, came = changes(before, after)
    assert len(went) == len(came) <= len(higher)
    assert [remark(line) for line in went] == [remark(line) for line in came]
    assert len(before.splitlines()) == len(after.splitlines())


@QUICK
@given(data=st.data(), name=names, seed=st.integers(0, 200))
def test_a_new_participant_is_one_new_line(plain: str, data: st.DataObject, name: str, seed: int) -> None:
    text = data.draw(decorated(plain))
    key = Signer.from_seed(seed.to_bytes(1, "big") * 31 + b"\xff").public_hex

    before, after = edited(
        text,
        lambda folder: add_participant(folder, name, key, "agreed"),
        lambda document: document["policy"]["participants"].update({name: key}),
    )

    went, came = changes(before, after)
    assert (went, [line for line in came if line]) == ([], [f'{name} = "{key}"'])


@QUICK
@given(data=st.data())
def test_an_allowed_model_touches_its_list_alone(plain: str, data: st.DataObject) -> None:
    text = data.draw(decorated(plain))
    model = data.draw(
        st.sampled_from([name for name in MODELS if name not in tomllib.loads(text)["policy"]["model_archs"]])
    )

    before, after = edited(
        text,
        lambda folder: allow_model(folder, model, MODELS, "agreed"),
        lambda document: document["policy"]["model_archs"].append(model),
    )

    went, came = changes(before, after)
    assert [remark(line) for line in before.splitlines() if "#" in line] == [
        remark(line) for line in after.splitlines() if "#" in line
    ]
    assert sum(model in line for line in came) == 1
    assert {bare(line) for line in came if model not in line} - {""} <= {bare(line) for line in went}


@QUICK
@given(data=st.data(), name=names)
def test_a_registered_dataset_is_a_table_at_the_end_of_the_lineages(plain: str, data: st.DataObject, name: str) -> None:
    text = data.draw(decorated(plain))
    entry: Mapping[str, Any] = {
        "lineage": f"new/{name}",
        "dataset_id": f"new/{name}",
        "unit": "person",
        "nominal_units": 10,
        "public": True,
        "epsilon": data.draw(caps),
        "delta": 1e-5,
        "job_epsilon": 1.0,
        "job_delta": 1e-5,
    }

    before, after = edited(
        text,
        lambda folder: add_lineage(folder, LineagePolicy.model_validate(entry), "agreed"),
        lambda document: document["lineages"].append(dict(entry)),
    )

    went, came = changes(before, after)
    assert went == []
    assert len([line for line in came if line]) == 1 + len(entry)


@QUICK
@given(data=st.data())
def test_a_lowered_cap_is_refused_and_leaves_every_byte(plain: str, data: st.DataObject) -> None:
    text = data.draw(decorated(plain))
    known = data.draw(st.sampled_from(tomllib.loads(text)["lineages"]))
    name = data.draw(st.sampled_from(["epsilon", "job_epsilon"]))
    asked = {name: data.draw(st.floats(0, known[name], exclude_max=True))}
    if data.draw(st.booleans()):  # a raise of the other cap makes it no better
        asked.setdefault("epsilon", known["epsilon"] + 1)

    with folder_with(text) as folder:
        with pytest.raises(ConfigurationError, match="a cap is never lowered"):
            raise_cap(folder, known["lineage"], asked, "agreed")
        assert (folder / "site.toml").read_text(encoding="utf-8") == text
        assert not (folder / "audit.jsonl").exists()
