"""Before anything numerical is imported, one thread for it.

Tests fork children that train, and a child in which a pool of its parent's threads is missing would wait for them for
ever. The Makefile says the same; a plain ``python -m pytest`` has to work too.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("MKL_CBWR", "AVX2,STRICT")  # read once, before the first product of whichever test comes first

settings.register_profile("unhurried", deadline=None)  # a busy machine's time says nothing about an example
settings.load_profile("unhurried")

_TESTS = Path(__file__).parent / "tests"
_HOSTILE = ("attacked", "hostile_coordinator")
_UNIT = (
    "aegis/aggregation",
    "aegis/attacks",
    "aegis/coordination",
    "aegis/http",
    "aegis/stores",
    "aegis/tuning",
    "coreason_enclave/configuration",
    "coreason_enclave/crypto",
    "coreason_enclave/datasets",
    "coreason_enclave/ledger",
    "coreason_enclave/models",
    "coreason_enclave/system",
    "coreason_enclave/witness",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by its folder: ``unit``, ``hostile`` or ``integration``."""
    for item in items:
        folder = item.path.parent.relative_to(_TESTS).as_posix() if _TESTS in item.path.parents else ""
        kind = "unit" if folder.startswith(_UNIT) else "hostile" if folder.startswith(_HOSTILE) else "integration"
        item.add_marker(kind)
