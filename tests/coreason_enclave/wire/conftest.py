from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def verifier() -> ModuleType:
    """``tools/verify_wire.py``, as whoever copied it would load it."""
    spec = importlib.util.spec_from_file_location("verify_wire", ROOT / "tools" / "verify_wire.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
