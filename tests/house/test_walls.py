"""The walls between the packages hold, and each contract that guards one can be broken."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("aegis", "coreason_enclave")
VERDICT = re.compile(r"^(?P<name>.+?) (?P<verdict>KEPT|BROKEN)(?: \(\d+ ignored imports?\))?$", re.MULTILINE)

PLATFORM_MODULE = re.compile(r"aegis\.(?P<room>\w+)(\.\w+)*(:\w+)?")


@dataclass(frozen=True)
class Breach:
    """One wrong import: ``line`` added to ``importer``; both ends are created where the tree lacks them."""

    contract: str
    importer: str
    line: str
    target: str | None = None


SITE_BELOW = "The site never imports the platform"
GROUND_FLOOR = "The platform imports only the site's ground floor, with four named exceptions"
SITE_LAYERS = "Layers of the site"
PLATFORM_LAYERS = "Layers of the platform"
CIRCLES = "No import goes round in a circle, between rooms or between modules"
DOORS = "From outside, a room is entered by its door"
RUNTIMES = "Runtimes know nothing of each other"
TORCH = "Torch only where models are trained"
OPACUS = "Opacus lives in one room"
FLOWER = "Flower only in one adapter per side"
NVFLARE = "NVIDIA FLARE only in one adapter per side"
QUOTES = "dcap-qvl is called in one place"
XML = "XML only where signed manifests are read"
NVML = "NVML only where this host's GPUs are asked"
PICTURES = "Pillow only where images are read"
TABLES = "pyarrow only where tables are read, and pandas nowhere"
NUMBA = "numba only behind the aggregators"
NO_WEB = "No web framework and no database toolkit"
STARLETTE = "Starlette only where requests are answered"

BREACHES = {
    "the site's session asks the platform for its errors": Breach(
        SITE_BELOW, "coreason_enclave/session/secure_session.py", "import aegis.errors", "aegis/errors.py"
    ),
    "the ground floor asks the platform inside a function": Breach(
        SITE_BELOW, "coreason_enclave/crypto/envelope.py", "def later():\n    import aegis.errors", "aegis/errors.py"
    ),
    "the site names a platform type for its annotations only": Breach(
        SITE_BELOW,
        "coreason_enclave/policy.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import aegis.errors",
        "aegis/errors.py",
    ),
    "the command line reaches into a site's session": Breach(
        GROUND_FLOOR,
        "aegis/cli.py",
        "from coreason_enclave.session import SecureSession",
        "coreason_enclave/session/secure_session.py",
    ),
    "the demo founds a site itself instead of asking the runtime": Breach(
        GROUND_FLOOR,
        "aegis/demo/shortcut.py",
        "from coreason_enclave.sentry import DataSentry",
        "coreason_enclave/sentry.py",
    ),
    "the coordinator borrows the site's trainer": Breach(
        GROUND_FLOOR,
        "aegis/federated_coordinator.py",
        "import coreason_enclave.privacy",
        "coreason_enclave/privacy/__init__.py",
    ),
    "the DP engine, an exception for training, opens the site's data": Breach(
        GROUND_FLOOR,
        "aegis/privacy_engine.py",
        "import coreason_enclave.datasets",
        "coreason_enclave/datasets/__init__.py",
    ),
    "a room that nobody opened is closed to the platform": Breach(
        GROUND_FLOOR,
        "aegis/evaluation.py",
        "import coreason_enclave.airlock",
        "coreason_enclave/airlock.py",
    ),
    "schemas stand on the ledger": Breach(
        SITE_LAYERS,
        "coreason_enclave/schemas.py",
        "from coreason_enclave.ledger import PrivacyLedger",
        "coreason_enclave/ledger/__init__.py",
    ),
    "training knows the sentry that judges it": Breach(
        SITE_LAYERS,
        "coreason_enclave/privacy/shortcut.py",
        "import coreason_enclave.sentry",
        "coreason_enclave/sentry.py",
    ),
    "a room appears in the site that no layer places": Breach(
        SITE_LAYERS, "coreason_enclave/annexe.py", "PLACE = None"
    ),
    "aggregation asks the coordinator": Breach(
        PLATFORM_LAYERS,
        "aegis/aggregation/shortcut.py",
        "from aegis.coordination import Participant",
        "aegis/coordination/__init__.py",
    ),
    "a room appears in the platform that no layer places": Breach(PLATFORM_LAYERS, "aegis/annexe.py", "PLACE = None"),
    "two files of one room import each other": Breach(
        CIRCLES, "coreason_enclave/ledger/records.py", "def later():\n    import coreason_enclave.ledger.operations"
    ),
    "a file is imported past the door of its room": Breach(
        DOORS,
        "aegis/evaluation.py",
        "from coreason_enclave.ledger.records import LedgerHead",
        "coreason_enclave/ledger/records.py",
    ),
    "one runtime leans on another": Breach(
        RUNTIMES,
        "aegis/runtimes/flower.py",
        "import aegis.runtimes.in_process",
        "aegis/runtimes/in_process.py",
    ),
    "one runtime leans on another, by the name at their room's door": Breach(
        RUNTIMES,
        "aegis/runtimes/flower/shortcut.py",
        "from aegis.runtimes import open_sites",
        "aegis/runtimes/in_process.py",
    ),
    "two files of one room import each other, one through the door": Breach(
        CIRCLES,
        "coreason_enclave/ledger/records.py",
        "def later():\n    from coreason_enclave.ledger import SqliteLedger",
    ),
    "the ground floor counts with Torch": Breach(
        TORCH, "coreason_enclave/wire/updates.py", "def convert():\n    import torch"
    ),
    "the command line loads Torch": Breach(TORCH, "aegis/cli.py", "import torch"),
    "a model zoo calls Opacus": Breach(OPACUS, "coreason_enclave/models/shortcut.py", "import opacus"),
    "the DP engine calls Opacus past the site's room": Breach(OPACUS, "aegis/privacy_engine.py", "import opacus"),
    "the session speaks Flower": Breach(FLOWER, "coreason_enclave/session/secure_session.py", "import flwr.clientapp"),
    "the rules of coordination speak Flower": Breach(
        FLOWER, "aegis/coordination/shortcut.py", "from flwr.serverapp import Grid"
    ),
    "the session speaks FLARE": Breach(
        NVFLARE, "coreason_enclave/session/secure_session.py", "from nvflare.apis.dxo import DXO"
    ),
    "the Flower runtime speaks FLARE": Breach(
        NVFLARE, "aegis/runtimes/flower/shortcut.py", "def later():\n    import nvflare"
    ),
    "an appraisal verifies quotes past the verifier": Breach(
        QUOTES, "coreason_enclave/attestation/appraisal.py", "def later():\n    import dcap_qvl"
    ),
    "the coordinator verifies quotes itself": Breach(QUOTES, "aegis/coordination/shortcut.py", "import dcap_qvl"),
    "a GPU's verifier reads XML itself": Breach(
        XML, "coreason_enclave/attestation/verify/nvidia/gpu_verifier.py", "from lxml import etree"
    ),
    "an envelope carries signed XML": Breach(XML, "coreason_enclave/crypto/envelope.py", "import signxml"),
    "a verifier asks this host's GPUs": Breach(
        NVML, "coreason_enclave/attestation/verify/nvidia/gpu_verifier.py", "import pynvml"
    ),
    "the trainer decodes images": Breach(PICTURES, "coreason_enclave/privacy/shortcut.py", "import PIL.Image"),
    "the trainer reads tables": Breach(TABLES, "coreason_enclave/privacy/shortcut.py", "import pyarrow"),
    "a table is read by pandas": Breach(
        TABLES, "coreason_enclave/datasets/shortcut.py", "def later():\n    import pandas"
    ),
    "accounting is compiled": Breach(NUMBA, "coreason_enclave/accounting/shortcut.py", "import numba"),
    "the ledger moves to a database toolkit": Breach(
        NO_WEB, "coreason_enclave/ledger/shortcut.py", "import sqlalchemy"
    ),
    "a web framework enters by the command line": Breach(NO_WEB, "aegis/cli.py", "import fastapi"),
    "a runtime answers requests itself": Breach(
        STARLETTE, "aegis/runtimes/flower/shortcut.py", "from starlette.routing import Router"
    ),
    "a site's tunnel answers requests with a framework": Breach(
        STARLETTE, "coreason_enclave/federation/shortcut.py", "def later():\n    import starlette"
    ),
}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "walls.py", tmp_path / "tools")
    return tmp_path


def module_at(tree: Path, relative: str) -> Path:
    """The file, created empty with its packages if the tree has it in no form.

    A module that the tree keeps as a package (``sentry/`` for ``sentry.py``) is addressed by its
    ``__init__.py``, and the other way round.
    """
    path = tree / relative
    as_package, as_module = path.with_suffix("") / "__init__.py", path.parent.with_suffix(".py")
    if as_package.exists():
        return as_package
    if path.name == "__init__.py" and as_module.exists():
        return as_module
    path.parent.mkdir(parents=True, exist_ok=True)
    for folder in [path.parent, *path.parent.parents]:
        if folder == tree:
            break
        (folder / "__init__.py").touch()
    path.touch()
    return path


def verdicts(tree: Path) -> dict[str, str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"]
    wide = {**os.environ, "COLUMNS": "200"}  # a wrapped line would cut a contract's name in two
    done = subprocess.run(command, cwd=tree, env=wide, capture_output=True, text=True, check=False)
    found = {match["name"]: match["verdict"] for match in VERDICT.finditer(done.stdout)}
    assert found, f"lint-imports judged nothing:\n{done.stdout}\n{done.stderr}"
    assert (done.returncode == 0) == all(verdict == "KEPT" for verdict in found.values())
    return found


def broken(tree: Path) -> set[str]:
    return {name for name, verdict in verdicts(tree).items() if verdict == "BROKEN"}


@pytest.fixture(scope="session")
def broken_already() -> set[str]:
    """Asked once, so that a breach in the tree itself is one red test here and not one for each row."""
    return broken(ROOT)


def test_the_tree_as_it_stands_keeps_every_contract(copy: Path) -> None:
    assert broken(copy) == set()


def test_every_contract_has_a_breach_that_breaks_it(copy: Path) -> None:
    assert set(verdicts(copy)) == {breach.contract for breach in BREACHES.values()}


def _by_contract() -> list[Any]:
    """The breaches; the fast tests try one of each contract."""
    tried: set[str] = set()
    chosen = []
    for name, breach in BREACHES.items():
        marks = [pytest.mark.slow] if breach.contract in tried else []
        tried.add(breach.contract)
        chosen.append(pytest.param(breach, id=name, marks=marks))
    return chosen


@pytest.mark.parametrize("breach", _by_contract())
def test_a_wrong_import_breaks_the_contract_that_forbids_it(
    copy: Path, breach: Breach, broken_already: set[str]
) -> None:
    if breach.target:
        module_at(copy, breach.target)
    importer = module_at(copy, breach.importer)
    importer.write_text(f"{importer.read_text(encoding='utf-8')}\n{breach.line}\n", encoding="utf-8")

    found = broken(copy) - broken_already
    assert breach.contract in found
    side_effects = {CIRCLES, DOORS}
    assert found <= {breach.contract} | side_effects, (
        "going up a layer may close a circle or pass a door; no more breaks"
    )


def test_no_string_in_the_site_names_a_module_of_the_platform() -> None:
    """A command that is loaded by its name would pass under every contract."""
    rooms = {path.stem for path in (ROOT / "aegis").iterdir()}
    named = {
        f"{path.relative_to(ROOT)} names {node.value}"
        for path in (ROOT / "coreason_enclave").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant)
        if (match := PLATFORM_MODULE.fullmatch(str(node.value))) and match["room"] in rooms
    }

    assert named == set()


def test_no_module_hides_in_a_folder_that_the_contracts_cannot_see() -> None:
    hidden = {
        str(path.parent.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if not (path.parent / "__init__.py").exists()
    }

    assert hidden == set(), "folders without __init__.py are no part of the import graph"
