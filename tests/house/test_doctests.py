"""Every example in a docstring runs, and every front door has one."""

from __future__ import annotations

import ast
import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("aegis", "coreason_enclave")

# The names that users are promised; each opens with an example of its use.
FRONT_DOORS = (
    "aegis",
    "aegis.aggregation",
    "aegis.federated_coordinator",
    "aegis.privacy_engine",
    "coreason_enclave",
    "coreason_enclave.accounting",
    "coreason_enclave.ledger",
    "coreason_enclave.privacy",
    "coreason_enclave.schemas",
    "coreason_enclave.sentry",
)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def source_of(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def modules_with_examples() -> list[str]:
    files = (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))
    return [module_name(path) for path in files if ">>> " in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("module", modules_with_examples())
def test_the_examples_give_what_they_say(module: str) -> None:
    outcome = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)

    assert outcome.attempted > 0
    assert outcome.failed == 0


@pytest.mark.parametrize("module", FRONT_DOORS)
def test_a_front_door_opens_with_an_example_and_says_what_it_offers(module: str) -> None:
    tree = ast.parse(source_of(module).read_text(encoding="utf-8"))

    assert ">>> " in (ast.get_docstring(tree) or ""), "no runnable example in the module's docstring"
    assert importlib.import_module(module).__all__
