"""A run that nothing disturbs, for those that something does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coreason_enclave.wire.updates import encode_arrays
from tests.support.studies import Fuse, OneByOne, Undisturbed, a_job, watched


@pytest.fixture(scope="module")
def undisturbed(federation_at: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    root = tmp_path_factory.mktemp("undisturbed")
    federation = federation_at(root / "founded")
    sites = [federation.create(f"clinic-{n}", rows=n) for n in (1, 2, 3)]
    job, fuse = a_job(federation, aggregator="trimmed_mean", num_byzantine=1, average_last_rounds=2), Fuse()
    first = Undisturbed(federation, job, root / "founded", sites, b"", 0).again(root / "first")
    model = first.run(job, grid=OneByOne, **watched(fuse, first.folder))
    return Undisturbed(federation, job, root / "founded", sites, encode_arrays(model), fuse.passed)
