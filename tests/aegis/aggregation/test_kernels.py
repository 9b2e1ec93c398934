from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from numba.core import caching

from aegis.aggregation import _kernels
from aegis.aggregation.columns import Columns
from aegis.errors import InvalidAggregation

ONES = np.ones(1000, np.float32)


def _fresh():
    """The smallest kernel, compiled anew."""
    compiled = _kernels.sum_of_squares
    return _kernels._compiled("float64(Array(float32, 1, 'C', True))")(compiled.py_func)


def test_kernels_work_where_no_cache_folder_can_be_written(monkeypatch) -> None:
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    with pytest.raises(RuntimeError, match="cannot cache"):
        numba.njit(cache=True)(_kernels.sum_of_squares.py_func)
    assert _fresh()(ONES) == 1000.0


def test_a_truncated_cache_entry_is_survived(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert _fresh()(ONES) == 1000.0
    entries = list(tmp_path.rglob("*.nb?"))
    assert entries, "the kernel should have been cached"
    for path in entries:
        path.write_bytes(path.read_bytes()[:20])
    assert _fresh()(ONES) == 1000.0


def test_importing_the_package_compiles_nothing_and_imports_no_compiler() -> None:
    code = "import aegis.aggregation, sys; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[3]).returncode == 0


def test_a_signed_zero_leaves_no_trace_of_who_came_first() -> None:
    network = np.array([[0, 1]], np.int32)
    results = []
    for first, second in [(0.0, -0.0), (-0.0, 0.0), (-0.0, -0.0)]:
        out = np.empty(1, np.float32)
        _kernels.mean_of_middle(np.float32([[first], [second]]), network, 0, 2, out)
        results.append(out.tobytes())
    assert len(set(results)) == 1


UNSCREENED = {
    "a tensor that is too short": np.zeros(3, np.float32),
    "float64": np.zeros(4),
    "an unaligned tensor": np.frombuffer(bytes(17), np.float32, offset=1),
}


@pytest.mark.parametrize("tensor", UNSCREENED.values(), ids=UNSCREENED.keys())
def test_memory_that_was_not_screened_is_never_read_by_its_address(tensor) -> None:
    with pytest.raises(InvalidAggregation, match="screen the updates first"):
        Columns.of([{"w": tensor}], {"w": (4,)})
