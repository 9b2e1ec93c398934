from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nvflare", reason="NVIDIA FLARE is not installed")
pytest.register_assert_rewrite("tests.aegis.runtimes.nvflare.hosted")

from tests.aegis.runtimes.flower.deployments import create  # noqa: E402
from tests.aegis.runtimes.nvflare.hosted import Hosted  # noqa: E402


@pytest.fixture
def hosted(tmp_path: Path, federation_at: Callable[[Path], Any]) -> Iterator[Callable[..., Hosted]]:
    """Create a federation of small sites to be run over FLARE; at the end, none of its processes may be left."""
    made: list[Hosted] = []

    def make(*, sites: int = 2, **changes: Any) -> Hosted:
        path = tmp_path / "federation"
        job = federation_at(path).job(**{"min_clients": sites, "rounds": 2, "round_deadline_s": 60.0, **changes})
        made.append(Hosted(create(path, federation_at, job, sites=sites)))
        return made[-1]

    yield make
    for each in made:
        each.await_silence()
