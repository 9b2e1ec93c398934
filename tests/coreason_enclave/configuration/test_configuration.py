"""Configuration made by an enemy, or by accident: refused in a moment, by one error that names file and line.

The oracle for what is let through is the standard library's own parser.
"""

from __future__ import annotations

import ast
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

import aegis
import coreason_enclave
from aegis.errors import InvalidJob, RunFolderError
from aegis.evidence.evidence_files import read_policy
from aegis.federation.job_files import load_job
from aegis.federation.registry import FederationFolder
from aegis.gateway.config import GatewayFiles
from coreason_enclave.attestation.attestation_policy import AttestationPolicy
from coreason_enclave.configuration import MAX_BYTES, parse_toml, read_toml
from coreason_enclave.configuration.toml import MAX_DEPTH, MAX_KEY_PARTS, MAX_WORD
from coreason_enclave.configuration.yaml import MAX_YAML_BYTES, read_yaml
from coreason_enclave.datasets.schema import parse_schema
from coreason_enclave.errors import ConfigurationError, DatasetRejected
from coreason_enclave.policy import load_site_config
from coreason_enclave.site.connection import load_connection

SECONDS = 10.0
"""Far more than any takes here, and far less than what a parser without caps takes."""

HOSTILE_TOML = {
    "a number of 5,000 digits": b"\na = " + b"9" * 5000,
    "a number with a break between its digits": b"\na = " + b"9_" * 5000 + b"9",
    "a float of 5,000 digits": b"\na = 0." + b"9" * 5000,
    "a number in hex of 5,000 digits": b"\na = 0x" + b"f" * 5000,
    "100,000 nested arrays": b"\na = " + b"[" * 100_000,
    "100,000 nested arrays that end": b"\na = " + b"[" * 100_000 + b"]" * 100_000,
    "nested tables": b"\na = " + b"{ a = " * 100_000,
    "a dotted key of 100,000 parts": b"\n" + b"a." * 100_000 + b"a = 1",
    "a dotted key with blanks": b"\n" + b"a . " * 100_000 + b"a = 1",
    "a dotted key of quoted parts": b"\n" + b'"a".' * 100_000 + b"a = 1",
    "a header of 100,000 parts": b"\n[" + b"a." * 100_000 + b"a]",
    "a key of 100,000 characters": b"\n" + b"a" * 100_000 + b" = 1",
    "a string without an end": b'\na = "' + b"x" * 1000,
    "quotes alone": b"\n" + b'"' * 100_000,
    "bytes that are no text": b"\n\xff\xfe",
    "a NUL": b"\na = \0",
    "a key twice": b"\na = 1\na = 2",
    "more than a file may hold": b"\n#" + b"x" * MAX_BYTES,
}


def job_of(folder: Path) -> Path:
    return folder / "job.yaml"


def read_dataset(folder: Path) -> object:
    return parse_schema((folder / "dataset.toml").read_bytes())


LOADERS: dict[str, tuple[str, type[Exception], Callable[[Path], object]]] = {
    "a site": ("site.toml", ConfigurationError, lambda at: load_site_config(at / "site.toml")),
    "a dataset": ("dataset.toml", DatasetRejected, read_dataset),
    "a connection": ("connection.toml", ConfigurationError, load_connection),
    "a federation": ("federation.toml", RunFolderError, lambda at: FederationFolder(at).config()),
    "a gateway": ("gateway.toml", RunFolderError, lambda at: GatewayFiles(at).config()),
    "a policy": ("policy.toml", ConfigurationError, lambda at: read_policy(at / "policy.toml", AttestationPolicy)),
}


def within_seconds(act: Callable[[], object], error: type[Exception]) -> str:
    began = time.monotonic()
    with pytest.raises(error) as raised:
        act()
    assert time.monotonic() - began < SECONDS
    assert type(raised.value) is error
    return str(raised.value)


@pytest.mark.parametrize("what", HOSTILE_TOML)
def test_every_loader_refuses_hostile_toml_in_its_own_error(what: str, tmp_path: Path) -> None:
    for name, error, load in LOADERS.values():
        (tmp_path / name).write_bytes(HOSTILE_TOML[what])
        said = within_seconds(lambda load=load: load(tmp_path), error)  # type: ignore[misc]
        assert name in said
        assert len(said) < 1000


@pytest.mark.parametrize(
    "what", ["a number of 5,000 digits", "100,000 nested arrays", "a dotted key of 100,000 parts", "a key twice"]
)
def test_a_refusal_names_the_line(what: str, tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_bytes(b"# one\n" + HOSTILE_TOML[what] + b"\n")
    expected = r"line 4" if what == "a key twice" else r"line 3"
    with pytest.raises(ConfigurationError, match=expected):
        read_toml(path)


@pytest.mark.parametrize("name", ["absent.toml", "folder", "nul\0.toml"])
def test_a_file_that_cannot_be_read_is_the_same_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigurationError, match="cannot read"):
        read_toml(tmp_path / name)


def test_a_file_without_an_end_is_read_no_further_than_its_limit() -> None:
    with pytest.raises(ConfigurationError, match="is larger than"):
        read_toml(Path("/dev/zero"))


# --- what is let through is what the parser reads -------------------------------------------------------------------

KEYS = st.text(min_size=1, max_size=12)
VALUES = st.recursive(
    st.text(max_size=300) | st.integers(-(1 << 63), (1 << 63) - 1) | st.booleans() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=5), st.booleans())
def test_ordinary_documents_are_read_as_the_standard_parser_reads_them(document: dict[str, Any], lines: bool) -> None:
    text = tomli_w.dumps(document, multiline_strings=lines)
    assert parse_toml(text.encode(), "x.toml") == tomllib.loads(text)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab.=[]{}\"'#\\\n ,1_", max_size=30))
def test_any_short_text_is_read_or_refused_as_by_the_standard_parser(text: str) -> None:
    try:
        expected = tomllib.loads(text)
    except ValueError:
        with pytest.raises(ConfigurationError, match=r"x\.toml"):
            parse_toml(text.encode(), "x.toml")
        return
    assert parse_toml(text.encode(), "x.toml") == expected


def test_brackets_dots_and_digits_inside_strings_and_comments_are_free() -> None:
    many = "[" * 500 + "." * 500 + "9" * 500
    text = f"# {many}\na = \"{many}\"\nb = '{many}'\nc = \"\"\"\n{many}\n\"\"\"\nd = '''\n{many}'''\ne = 1 # {many}\n"
    assert parse_toml(text.encode(), "x.toml") == tomllib.loads(text)


def test_each_cap_lets_its_last_value_through_and_no_more() -> None:
    for make, most in (
        (lambda n: "a = " + "[" * n + "]" * n, MAX_DEPTH),
        (lambda n: ".".join("a" * n) + " = 1", MAX_KEY_PARTS),
        (lambda n: "a" * n + " = 1", MAX_WORD),
        (lambda n: "a = " + "9" * n, MAX_WORD),
    ):
        assert parse_toml(make(most).encode(), "x.toml")
        with pytest.raises(ConfigurationError, match=str(most)):
            parse_toml(make(most + 1).encode(), "x.toml")


@pytest.mark.slow
def test_the_slowest_documents_that_the_caps_let_through_take_seconds(tmp_path: Path) -> None:
    key = ".".join("abcdefghijklmno")
    for line in (f"[{key}.k{{}}]\n", f"{key}.k{{}} = 1\n", "a{} = 1\n", "[[a]] # {}\n", f"[[{key}]] # {{}}\n"):
        text = "".join(line.format(number) for number in range(MAX_BYTES // (len(line) + 6)))
        began = time.monotonic()
        parse_toml(text.encode(), "x.toml")
        assert time.monotonic() - began < 3 * SECONDS, line


# --- YAML ------------------------------------------------------------------------------------------------------------

HOSTILE_YAML = {
    "aliases that unfold": "a: &a [1]\n" + "".join(f"b{n}: &b{n} [*a, *a]\n" for n in range(30)),
    "an anchor": "a: &a 1",
    "a merge": "a: &a {b: 1}\nc:\n  <<: *a",
    "a tag that runs code": "!!python/object/apply:os.system ['true']",
    "a tag without a value": "a: !!int ''",
    "a truth that is none": "a: !!bool maybe",
    "a moment that is none": "a: !!timestamp now",
    "a moment outside the calendar": "a: 9999-99-99",
    "a number of 5,000 digits": "a: " + "9" * 5000,
    "nested brackets": "a: " + "[" * 50_000,
    "nested mappings": "".join(" " * n + "a:\n" for n in range(300)),
    "nested sequences": "- " * 20_000 + "a",
    "a key that is a list": "? [a]\n: 1",
    "one key 10,000 times": "a: 1\n" * 10_000,
    "more than a job holds": "# " + "x" * MAX_YAML_BYTES,
    "a NUL": "a: \0",
    "no mapping": "- 1",
}


@pytest.mark.parametrize("what", HOSTILE_YAML)
def test_hostile_jobs_are_refused(what: str, tmp_path: Path) -> None:
    path = job_of(tmp_path)
    path.write_text(HOSTILE_YAML[what])
    said = within_seconds(lambda: load_job(path), InvalidJob)
    if what.startswith(("aliases", "an anchor", "a merge")):
        assert "anchors and aliases are not supported" in said
    elif what.startswith("a tag"):
        assert "tags such as" in said
    assert "job.yaml" in said
    assert len(said) < 1000


def test_yaml_of_many_keys_is_read_within_seconds(tmp_path: Path) -> None:
    """One comparison of each key with each other would take longer than reading them."""
    path = job_of(tmp_path)
    path.write_text("".join(f"k{number}: 1\n" for number in range(5_000)))
    began = time.monotonic()
    assert len(read_yaml(path)) == 5_000
    assert time.monotonic() - began < SECONDS


def test_plain_values_of_yaml_are_read(tmp_path: Path) -> None:
    path = job_of(tmp_path)
    path.write_text("job_id: study\nrate: 1e-5\nlist: [1, two, 3.5]\ninner: {a: true, b: null}\ntext: 'it''s'\n")
    expected = {"job_id": "study", "rate": 1e-5, "list": [1, "two", 3.5], "inner": {"a": True, "b": None}}
    assert read_yaml(path) == {**expected, "text": "it's"}


# --- one reader ------------------------------------------------------------------------------------------------------


def test_no_module_but_the_reader_parses_configuration() -> None:
    """``yaml.safe_dump`` and ``tomli_w`` write; whoever reads goes through :mod:`coreason_enclave.configuration`."""
    readers = {"tomllib": {"loads", "load"}, "yaml": {"load", "safe_load", "full_load", "unsafe_load", "load_all"}}
    found = set()
    for package in (aegis, coreason_enclave):
        root = Path(str(package.__file__)).parent
        for path in root.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                named = node.value.id if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) else ""
                reads = isinstance(node, ast.Attribute) and node.attr in readers.get(named, ())
                if reads or (isinstance(node, ast.ImportFrom) and node.module in readers):
                    found.add(f"{root.name}/{path.relative_to(root)}")
    assert found == {"coreason_enclave/configuration/toml.py", "coreason_enclave/configuration/yaml.py"}
