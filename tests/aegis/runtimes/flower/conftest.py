from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("tests.aegis.runtimes.flower.deployments")

from tests.aegis.runtimes.flower.deployments import Deployment, create, wait_for  # noqa: E402


@pytest.fixture
def deployment(tmp_path: Path, federation_at: Callable[[Path], Any]) -> Iterator[Callable[..., Deployment]]:
    """Found a deployment of three small sites; at the end, none of its processes may be left."""
    made: list[Deployment] = []

    def make(*, sites: int = 3, **changes: Any) -> Deployment:
        path = tmp_path / "federation"
        job = federation_at(path).job(**{"min_clients": 3, "rounds": 3, "round_deadline_s": 90.0, **changes})
        made.append(create(path, federation_at, job, sites=sites))
        return made[-1]

    yield make
    for each in made:
        wait_for(lambda each=each: not each.processes(), "every process is gone", within_s=10)
