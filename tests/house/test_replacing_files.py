"""Files are replaced in one place, :mod:`coreason_enclave.system.files`, and made durable there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
THE_PLACE = "coreason_enclave/system/files.py"

CALLS = {
    ("os", "replace"),
    ("os", "rename"),
    ("os", "renames"),
    ("os", "link"),
    ("shutil", "move"),
    ("tempfile", "mkstemp"),
    ("tempfile", "NamedTemporaryFile"),
}
METHODS = {"rename", "hardlink_to"}

ALLOWED: set[tuple[str, str]] = set()


def replacements(source: str) -> list[tuple[int, str]]:
    """Calls that give a file another file's name: line and function."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner, name = node.func.value, node.func.attr
        known = isinstance(owner, ast.Name) and (owner.id, name) in CALLS
        path = name == "replace" and len(node.args) == 1 and not node.keywords  # str.replace and replace() take two
        if known or name in METHODS or path:
            found.append((node.lineno, name))
    return found


def test_nothing_but_the_one_place_gives_a_file_another_files_name() -> None:
    strays = {
        (str(path.relative_to(ROOT)), name)
        for package in ("aegis", "coreason_enclave")
        for path in sorted((ROOT / package).rglob("*.py"))
        for _, name in replacements(path.read_text(encoding="utf-8"))
        if str(path.relative_to(ROOT)) != THE_PLACE
    }
    assert strays - ALLOWED == set()
    assert ALLOWED - strays == set()


FOUND = {
    "by path": "path.with_name('x').replace(path)",
    "by the system": "os.replace(a, b)",
    "renamed": "draft.rename(path)",
    "linked": "path.hardlink_to(draft)",
    "through a temporary file": "tempfile.mkstemp()",
    "moved": "shutil.move(a, b)",
}


@pytest.mark.parametrize("line", FOUND.values(), ids=FOUND)
def test_a_replacement_is_found(line: str) -> None:
    assert replacements(f"def write():\n    {line}\n") == [(2, ast.parse(line).body[0].value.func.attr)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("line", ["text.replace('a', 'b')", "replace(job, rounds=2)", "moment.replace(tzinfo=UTC)"])
def test_what_replaces_no_file_is_left_alone(line: str) -> None:
    assert replacements(line) == []
