"""Importing a door or the ground floor loads no framework: checking a policy must not cost Torch."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("flwr", "httpx", "matplotlib", "numba", "opacus", "pandas", "pyarrow", "sklearn", "statsmodels", "torch")

# The site's own rooms may load what they need; every other module of the package is ground floor.
SITE_ROOMS = {
    "agent",
    "datasets",
    "federation",
    "hardware",
    "models",
    "privacy",
    "sentry",
    "session",
    "site",
}
DOORS = {"aegis", "aegis.cli", "aegis.errors", "coreason_enclave", "coreason_enclave.main"}

LOADED = """
import importlib, pkgutil, sys
room = importlib.import_module(sys.argv[1])
if room.__name__.startswith("coreason_enclave."):
    for found in pkgutil.walk_packages(getattr(room, "__path__", []), room.__name__ + "."):
        importlib.import_module(found.name)
print(*sorted(name for name in sys.argv[2:] if name in sys.modules))
"""


def exists(module: str) -> bool:
    path = ROOT.joinpath(*module.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def ground_floor() -> list[str]:
    names = {path.stem for path in (ROOT / "coreason_enclave").glob("*.py") if path.stem != "__init__"}
    names |= {path.parent.name for path in (ROOT / "coreason_enclave").glob("*/__init__.py")}
    return [f"coreason_enclave.{name}" for name in sorted(names - SITE_ROOMS)]


@pytest.mark.parametrize("module", sorted({*ground_floor(), *filter(exists, DOORS)}))
def test_importing_it_in_a_fresh_interpreter_loads_no_framework(module: str) -> None:
    command = [sys.executable, "-c", LOADED, module, *HEAVY]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


@pytest.mark.parametrize("package", ["aegis", "coreason_enclave"])
def test_importing_a_package_imports_no_module_of_it_and_one_small_library(package: str) -> None:
    code = (
        f"import sys; bare = set(sys.modules); import {package}; new = set(sys.modules) - bare\n"
        "print(*sorted(name for name in new if name.partition('.')[0] not in sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert set(done.stdout.split()) == {package, "lazy_loader"}


def doors() -> list[str]:
    stubs = (path for package in ("aegis", "coreason_enclave") for path in (ROOT / package).rglob("__init__.pyi"))
    return sorted(".".join(path.parent.relative_to(ROOT).parts) for path in stubs)


@pytest.mark.parametrize("room", doors())
def test_every_name_at_a_door_can_be_imported_and_is_listed(room: str) -> None:
    door = importlib.import_module(room)

    assert door.__all__ == sorted(door.__all__)
    assert set(door.__all__) <= set(dir(door))
    assert [name for name in door.__all__ if getattr(door, name) is None] == []
    with pytest.raises(AttributeError):
        door.no_such_name  # noqa: B018
