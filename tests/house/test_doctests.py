"""Every example in a docstring runs, and every front door has an example."""

from __future__ import annotations

import ast
import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("aegis", "coreason_enclave")

# Front doors that are files: the names that users are promised. Every other front door is a package.
FILES = (
    "aegis.federated_coordinator",
    "aegis.privacy_engine",
    "coreason_enclave.schemas",
    "coreason_enclave.sentry",
)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def source_of(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def docstring_of(module: str) -> str:
    return ast.get_docstring(ast.parse(source_of(module).read_text(encoding="utf-8"))) or ""


def modules_with_examples() -> list[str]:
    files = (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))
    return [module_name(path) for path in files if ">>> " in path.read_text(encoding="utf-8")]


def rooms() -> list[str]:
    return sorted(module_name(path) for package in PACKAGES for path in (ROOT / package).rglob("__init__.py"))


@pytest.mark.parametrize("module", modules_with_examples())
def test_the_examples_give_what_they_say(module: str) -> None:
    outcome = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)

    assert outcome.attempted > 0
    assert outcome.failed == 0


@pytest.mark.parametrize("module", [*rooms(), *FILES])
def test_a_front_door_opens_with_an_example_and_lists_its_names(module: str) -> None:
    examples = doctest.DocTestParser().get_examples(docstring_of(module))
    offers_names = module in FILES or source_of(module).with_suffix(".pyi").exists()

    assert examples, "no example in the module's docstring"
    assert not any(doctest.SKIP in example.options for example in examples), "an example that does not run"
    assert bool(importlib.import_module(module).__all__) == offers_names


@pytest.mark.parametrize("room", rooms())
def test_a_room_says_what_enters_what_leaves_and_what_never_happens(room: str) -> None:
    docstring = docstring_of(room)

    assert [word for word in ("Enters:", "Leaves:", "Never:") if word not in docstring] == []
