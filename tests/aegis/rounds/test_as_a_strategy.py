"""The coordinator as a Flower ``Strategy``, driven by hand or by Flower."""

from __future__ import annotations

from pathlib import Path

import pytest
from flwr.app import Array as FlowerArray
from flwr.app import ArrayRecord, ConfigRecord

from aegis.errors import InvalidJob
from aegis.runtimes.in_process import (
    initial_model,
)
from coreason_enclave.wire.updates import encode_arrays, model_digest
from tests.support.studies import (
    Undisturbed,
)


def test_driven_by_hand_as_a_strategy_it_gives_the_model_that_run_gives(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    run, job = undisturbed.again(tmp_path), undisturbed.job
    with run.opened() as opened, run.coordinator(job, opened) as strategy:
        arrays = ArrayRecord({name: FlowerArray(value) for name, value in initial_model(job).items()})
        for number in (1, 2):
            messages = strategy.configure_train(number, arrays, ConfigRecord(), opened.grid)
            updated, metrics = strategy.aggregate_train(number, opened.grid.send_and_receive(messages))
            assert updated is not None
            assert metrics is not None
        assert list(strategy.configure_evaluate(1, arrays, ConfigRecord(), opened.grid)) == []
        assert strategy.aggregate_evaluate(1, []) is None
        state = run.store.load()
        assert state is not None
        assert encode_arrays(strategy.released_model(state)) == undisturbed.model
        last = {name: array.numpy() for name, array in updated.items()}
        assert model_digest(last) == state.models[-1]


def test_a_strategy_takes_its_rounds_in_order(undisturbed: Undisturbed, tmp_path: Path) -> None:
    run, job = undisturbed.again(tmp_path), undisturbed.job
    with run.opened() as opened, run.coordinator(job, opened) as strategy:
        arrays = ArrayRecord({name: FlowerArray(value) for name, value in initial_model(job).items()})
        with pytest.raises(InvalidJob, match="round 1 is not open"):
            strategy.aggregate_train(1, [])
        with pytest.raises(InvalidJob, match="round 2 is not next"):
            strategy.configure_train(2, arrays, ConfigRecord(), opened.grid)
        for number in (1, 2):
            messages = strategy.configure_train(number, arrays, ConfigRecord(), opened.grid)
            replies = list(opened.grid.send_and_receive(messages))
            strategy.aggregate_train(number, replies)
            with pytest.raises(InvalidJob, match=f"round {number + 1} is not open"):
                strategy.aggregate_train(number + 1, replies)  # the last round's updates are not the next one's
        with pytest.raises(InvalidJob, match="round 3 is not next: 2 of 2 are complete"):
            strategy.configure_train(3, arrays, ConfigRecord(), opened.grid)


def test_as_a_strategy_too_few_updates_leave_the_round_open_and_it_is_asked_again(
    undisturbed: Undisturbed, tmp_path: Path
) -> None:
    run, job = undisturbed.again(tmp_path), undisturbed.job
    with run.opened() as opened, run.coordinator(job, opened) as strategy:
        arrays = ArrayRecord({name: FlowerArray(value) for name, value in initial_model(job).items()})
        messages = list(strategy.configure_train(1, arrays, ConfigRecord(), opened.grid))
        replies = list(opened.grid.send_and_receive(messages))
        assert strategy.aggregate_train(1, replies[:2]) == (None, None)
        assert run.history() == ()
        again = opened.grid.send_and_receive(strategy.configure_train(1, arrays, ConfigRecord(), opened.grid))
        updated, _ = strategy.aggregate_train(1, again)
        assert updated is not None
    assert [record.round_number for record in run.history()] == [1]


def test_flowers_own_entry_runs_the_jobs_rounds(undisturbed: Undisturbed, tmp_path: Path) -> None:
    run, job = undisturbed.again(tmp_path), undisturbed.job
    with run.opened() as opened, run.coordinator(job, opened) as strategy:
        arrays = ArrayRecord({name: FlowerArray(value) for name, value in initial_model(job).items()})
        with pytest.raises(InvalidJob, match="the signed job has 2 rounds, not 5"):
            strategy.start(opened.grid, arrays, num_rounds=5)
        result = strategy.start(opened.grid, arrays)
    assert encode_arrays({name: array.numpy() for name, array in result.arrays.items()}) == undisturbed.model
