"""Everything that is imported is declared, in the extra of the side that imports it."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OWN = {"aegis", "coreason_enclave"}

# Rooms of the site that need more than the plain installation, and the extras that bring it.
EXTRAS_OF = {
    "coreason_enclave/privacy": {"privacy"},
    "coreason_enclave/models": {"privacy"},
    "coreason_enclave/datasets": {"images", "tables"},
    "coreason_enclave/federation/executor": {"nvflare"},
    "coreason_enclave/federation/nvflare": {"nvflare", "privacy"},
    "coreason_enclave/federation": {"flower"},
    "coreason_enclave/attestation": {"attestation"},
    "coreason_enclave/hardware": {"nvidia"},
    "coreason_enclave/configuration/yaml": {"platform"},
    "coreason_enclave": set(),
    "aegis/demo": {"demo"},
    "aegis/runtimes/nvflare": {"nvflare", "platform"},
    "aegis": {"site", "platform"},
}


# What is imported only where it is there: its distribution cannot be asked for its name.
NOT_NECESSARILY_INSTALLED = {"pynvml": ["nvidia-ml-py"]}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(requirement: str) -> tuple[str, list[str]]:
    match = re.match(r"([A-Za-z0-9._-]+)(?:\[([^\]]*)\])?", requirement)
    assert match is not None
    return normal(match[1]), [extra for extra in (match[2] or "").split(",") if extra]


def brought_by(extras: set[str]) -> set[str]:
    """The distributions of the plain installation and of ``extras``, with the extras that those name."""
    found = {declared(requirement)[0] for requirement in PROJECT["dependencies"]}
    waiting = sorted(extras)
    while waiting:
        for requirement in PROJECT["optional-dependencies"][waiting.pop()]:
            name, inner = declared(requirement)
            found.add(name)
            waiting += inner if name == PROJECT["name"] else []
    return found - {PROJECT["name"]}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names} - OWN - set(sys.stdlib_module_names)


@cache
def distributions() -> dict[str, list[str]]:
    return {**NOT_NECESSARILY_INSTALLED, **packages_distributions()}


def extras_for(relative: str) -> set[str]:
    return next(extras for room, extras in EXTRAS_OF.items() if relative.startswith((f"{room}/", f"{room}.py")))


@pytest.mark.parametrize("package", sorted(OWN))
def test_every_import_is_brought_by_the_extra_of_its_room(package: str) -> None:
    undeclared = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / package).rglob("*.py")
        for name in imported(path)
        if not {normal(dist) for dist in distributions().get(name, [name])}
        & brought_by(extras_for(path.relative_to(ROOT).as_posix()))
    }

    assert undeclared == set()


def test_the_plain_installation_brings_no_framework() -> None:
    frameworks = {"torch", "opacus", "flwr", "nvflare", "pandas", "pyarrow", "numba", "matplotlib", "dcap-qvl", "lxml"}
    assert not brought_by(set()) & frameworks


def test_both_ends_can_verify_evidence_and_neither_needs_a_gpu_to_do_so() -> None:
    for end in ("site", "platform"):
        assert {"dcap-qvl", "httpx", "signxml", "lxml"} <= brought_by({end})
        assert "nvidia-ml-py" not in brought_by({end})


def test_a_site_gets_no_part_of_the_platform() -> None:
    assert not brought_by({"site"}) & {"flwr", "numba", "matplotlib", "rich", "statsmodels", "scikit-learn"}


def test_every_declared_dependency_is_in_the_tested_set() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {normal(line.partition("==")[0]) for line in lines if "==" in line and not line.startswith("#")}

    assert brought_by({"all", "dev", "nvidia"}) <= pinned


def test_the_tested_set_names_no_place_and_no_build() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    requirements = [line for line in lines if line and not line.startswith("#")]

    assert [line for line in requirements if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", line)] == []
