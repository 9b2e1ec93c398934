from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("tests.attacked.rounds", "tests.aegis.runtimes.flower.deployments")

from tests.aegis.runtimes.flower.deployments import wait_for  # noqa: E402
from tests.attacked.rounds import Attacked, attacked  # noqa: E402


@pytest.fixture
def made(tmp_path: Path, federation_at: Callable[[Path], Any]) -> Iterator[Attacked]:
    """A deployment to attack; at the end, none of its processes may be left."""
    deployment = attacked(tmp_path / "federation", federation_at)
    yield deployment
    wait_for(lambda: not deployment.deployment.processes(), "every process is gone", within_s=10)
