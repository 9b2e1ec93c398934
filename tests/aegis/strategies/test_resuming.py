"""What a strategy remembers survives as the model does: a run that lost power anywhere ends in the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aegis.stores.run_state import StrategyState
from coreason_enclave.wire.updates import encode_arrays
from tests.aegis.strategies.conftest import EVERYTHING
from tests.support.studies import Fuse, OneByOne, PowerFailure, Study, Undisturbed, a_job, check_resumed, watched

SERVER = {"name": "yogi", "learning_rate": 0.3}


class Noting(Fuse):
    """Never fails, and notes the name of each durable write."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def through(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **options: Any) -> Any:
            self.names.append(write.__name__)
            return write(*args, **options)

        return super().through(noted)


@pytest.fixture(scope="module")
def undisturbed(federation_at: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    root = tmp_path_factory.mktemp("undisturbed")
    federation = federation_at(root / "founded")
    sites = [federation.create(f"clinic-{n}", rows=n, policy={"strategies": EVERYTHING}) for n in (1, 2, 3)]
    job = a_job(federation, strategy="SCAFFOLD", momentum=0.0, server_optimizer=SERVER)
    fuse = Fuse()
    first = Undisturbed(federation, job, root / "founded", sites, b"", 0).again(root / "first")
    model = first.run(job, grid=OneByOne, **watched(fuse, first.folder))
    return Undisturbed(federation, job, root / "founded", sites, encode_arrays(model), fuse.passed)


@pytest.fixture(scope="module")
def remembered(undisturbed: Undisturbed, tmp_path_factory: pytest.TempPathFactory) -> StrategyState:
    run = undisturbed.again(tmp_path_factory.mktemp("remembered"))
    run.run(undisturbed.job)
    return run.state().strategy


def kept(run: Study) -> set[str]:
    return {path.stem for path in (run.folder / "state" / "strategy").iterdir()}


def test_a_run_keeps_the_last_of_each_document_and_no_other(
    undisturbed: Undisturbed, remembered: StrategyState, tmp_path: Path
) -> None:
    run = undisturbed.again(tmp_path)
    run.run(undisturbed.job)
    assert run.state().strategy == remembered
    assert sorted(remembered.variates) == ["clinic-1", "clinic-2", "clinic-3"]
    assert len(remembered.digests()) == 5
    assert kept(run) == remembered.digests()


def lose_power_after(number: int, undisturbed: Undisturbed, remembered: StrategyState, folder: Path) -> None:
    run = undisturbed.again(folder)
    with pytest.raises(PowerFailure):
        run.run(undisturbed.job, grid=OneByOne, **watched(Fuse(number, "after"), run.folder))
    check_resumed(run, undisturbed)
    assert run.state().strategy == remembered
    assert kept(run) >= remembered.digests()


@pytest.mark.parametrize("write", ["save_strategy", "save_model", "keep_strategy"])
def test_power_may_fail_after_what_a_strategy_writes(
    undisturbed: Undisturbed, remembered: StrategyState, tmp_path: Path, write: str
) -> None:
    fuse, run = Noting(), undisturbed.again(tmp_path / "noting")
    run.run(undisturbed.job, grid=OneByOne, **watched(fuse, run.folder))
    assert len(fuse.names) == undisturbed.writes
    at = [number for number, name in enumerate(fuse.names, start=1) if name == write]
    for number in at[-3:]:  # in the last round, whose documents replace others
        lose_power_after(number, undisturbed, remembered, tmp_path / str(number))


@pytest.mark.slow
def test_power_may_fail_after_any_durable_write(
    undisturbed: Undisturbed, remembered: StrategyState, tmp_path: Path
) -> None:
    assert undisturbed.writes > 50
    for number in range(1, undisturbed.writes + 1):
        lose_power_after(number, undisturbed, remembered, tmp_path / str(number))


def test_the_order_in_which_sites_are_heard_changes_no_bit(
    undisturbed: Undisturbed, remembered: StrategyState, tmp_path: Path
) -> None:
    run = undisturbed.again(tmp_path)
    model = run.run(undisturbed.job, sites=run.sites[::-1])
    assert encode_arrays(model) == undisturbed.model
    assert run.state().strategy == remembered
