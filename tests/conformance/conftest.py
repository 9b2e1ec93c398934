from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("tests.conformance.runtimes")

from aegis.runs.connect import RuntimeName  # noqa: E402
from coreason_enclave.schemas import FederationJob  # noqa: E402
from tests.conformance.runtimes import ROOT, CarriedOut, Sites, carry_out, create, processes_naming, wait_for  # noqa: E402

Carry = Callable[..., CarriedOut]


@pytest.fixture(autouse=True)
def _agents_find_the_trainers_of_this_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all test processes of this session share: a run is made once, whoever needs it first."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "conformance"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def carried(place: Path, federation_at: Callable[[Path], Any]) -> Iterator[Carry]:
    """Carry out one job over one set of sites on a runtime, once a session; no process is left over."""
    asked: list[Path] = []

    def carry(name: str, runtime: RuntimeName, sites: Sites, job: FederationJob) -> CarriedOut:
        founded, copy = place / name, place / f"{name}-{runtime.value}"
        asked.append(copy)
        with _Alone(place / f"{name}.lock"):
            if not founded.exists():
                create(founded, federation_at, sites)
        with _Alone(place / f"{copy.name}.lock"):
            note = place / f"{copy.name}.said"
            if not note.exists():
                done = carry_out(runtime, founded, copy, job)
                note.write_text(done.error)
        return CarriedOut(runtime, copy, note.read_text())

    yield carry
    for path in asked:
        wait_for(lambda path=path: not processes_naming(path), "every process is gone", within_s=15)


class _Alone:
    """A lock between processes, by a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        self._file = self._path.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self._file.close()
