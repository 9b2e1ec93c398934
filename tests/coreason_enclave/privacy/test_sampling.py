"""Batches are Poisson samples of units; nothing else passes for one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, chi2, norm
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from coreason_enclave.crypto.keystream import Keystream
from coreason_enclave.errors import PrivacyBudgetExceededError, UnsafeTrainingError
from coreason_enclave.privacy.kernel import GradientKernel
from coreason_enclave.privacy.kernel.blocks import Blocks, declared_blocks
from coreason_enclave.privacy.sampling import PoissonUnitSampler, UnitIndex, private_loader, require_convertible
from coreason_enclave.privacy.step_gate import StepGate

UNITS, RATE, DRAWS = 2000, 0.05, 400


def poisson_p_values(included: np.ndarray, rate: float) -> dict[str, float]:
    """How well ``included`` (draws, units) fits independent inclusion with ``rate``; every value uniform if it does."""
    draws, units = included.shape
    variance = rate * (1 - rate)
    total = (included.sum() - draws * units * rate) / np.sqrt(draws * units * variance)
    sizes = ((included.sum(axis=1) - units * rate) ** 2).sum() / (units * variance)
    counts = ((included.sum(axis=0) - draws * rate) ** 2).sum() / (draws * variance)
    centred = included - rate
    serial = (centred[1:] * centred[:-1]).sum() / np.sqrt((draws - 1) * units * variance**2)
    return {
        "rate": 2 * norm.sf(abs(total)),
        "batch sizes vary": 2 * min(chi2.sf(sizes, draws), chi2.cdf(sizes, draws)),
        "units vary": 2 * min(chi2.sf(counts, units), chi2.cdf(counts, units)),
        "steps are independent": 2 * norm.sf(abs(serial)),
    }


def inclusion(batches: list[np.ndarray], units: int) -> np.ndarray:
    included = np.zeros((len(batches), units))
    for draw, batch in enumerate(batches):
        included[draw, batch] = 1
    return included


def sampler_of(rate: float, index: UnitIndex, draws: int = DRAWS) -> PoissonUnitSampler:
    stream = Keystream(bytes(32), job_digest="00", round_number=1, base_model_digest="01", dataset_digest="02")
    return PoissonUnitSampler(index, rate, stream, StepGate(draws, None))


def stepped_on(sampler: PoissonUnitSampler, draws: int) -> list[np.ndarray]:
    """So many samples, each of them used in a step, as the gate demands."""
    passes = itertools.chain.from_iterable(itertools.repeat(sampler))
    batches = []
    for _ in range(draws):
        batches.append(next(passes))
        sampler._gate.take_step()
    return batches


def drawn(rate: float) -> np.ndarray:
    return inclusion(stepped_on(sampler_of(rate, UnitIndex(None, UNITS)), DRAWS), UNITS)


def test_the_sampler_is_poisson_at_its_rate() -> None:
    assert min(poisson_p_values(drawn(RATE), RATE).values()) > 1e-4


@pytest.mark.parametrize("wrong", [RATE * 0.97, RATE * 1.03])
def test_a_slightly_wrong_rate_is_told_apart(wrong: float) -> None:
    assert poisson_p_values(drawn(wrong), RATE)["rate"] < 1e-4


def test_a_shuffled_loader_is_told_apart_although_its_rate_is_right() -> None:
    rng, size = np.random.default_rng(0), int(UNITS * RATE)
    epochs = [rng.permutation(UNITS).reshape(-1, size) for _ in range(DRAWS * size // UNITS)]
    p_values = poisson_p_values(inclusion(list(np.concatenate(epochs)), UNITS), RATE)

    assert p_values["batch sizes vary"] < 1e-10
    assert p_values["units vary"] < 1e-10


def test_batches_of_a_fixed_size_are_told_apart() -> None:
    rng, size = np.random.default_rng(0), int(UNITS * RATE)
    batches = [rng.choice(UNITS, size, replace=False) for _ in range(DRAWS)]

    assert poisson_p_values(inclusion(batches, UNITS), RATE)["batch sizes vary"] < 1e-10


def test_persons_are_sampled_and_not_their_rows() -> None:
    persons = np.repeat(np.arange(400), 5)
    np.random.default_rng(0).shuffle(persons)
    sampler = sampler_of(0.2, UnitIndex(persons, len(persons)))
    batches = stepped_on(sampler, 400)

    for batch in batches:
        assert len(np.unique(persons[batch])) * 5 == len(batch)  # all rows of a person, or none
    included = inclusion([np.unique(persons[batch]) for batch in batches], 400)
    assert min(poisson_p_values(included, 0.2).values()) > 1e-4


@given(ids=st.lists(st.integers(-5, 5), max_size=40), taken=st.integers(0, 2**11 - 1))
def test_a_batch_holds_every_row_of_every_unit_taken_and_no_other(ids: list[int], taken: int) -> None:
    index = UnitIndex(np.array(ids, dtype=np.int64), len(ids))
    included = np.array([bool(taken >> i & 1) for i in range(index.count)], dtype=bool)

    batch = index.batch(included)

    distinct = sorted(set(ids))
    chosen = {unit for unit, is_in in zip(distinct, included, strict=True) if is_in}
    assert sorted(batch.rows.tolist()) == [row for row, unit in enumerate(ids) if unit in chosen]
    assert batch.units == len(chosen)
    by_position = {position: ids[row] for row, position in zip(batch.rows, batch.unit_of_row, strict=True)}
    assert by_position == dict(enumerate(sorted(chosen)))


def test_unit_ids_that_do_not_name_every_row_are_refused() -> None:
    with pytest.raises(UnsafeTrainingError, match="each row needs one id"):
        UnitIndex(np.arange(9), 10)


def test_a_sample_that_was_passed_over_is_refused_because_the_number_of_steps_would_tell_of_private_rows() -> None:
    sampler = iter(sampler_of(0.5, UnitIndex(None, 10)))
    next(sampler)  # a loop that skips an empty batch without a step does just this

    with pytest.raises(UnsafeTrainingError, match="for every batch, even an empty one"):
        next(sampler)


def test_a_sample_that_no_affordable_step_could_use_is_not_drawn() -> None:
    gate = StepGate(1, 3.0)
    stream = Keystream(bytes(32), job_digest="00", round_number=1, base_model_digest="01", dataset_digest="02")
    sampler = iter(PoissonUnitSampler(UnitIndex(None, 10), 0.5, stream, gate))
    next(sampler)
    gate.take_step()

    with pytest.raises(PrivacyBudgetExceededError):
        next(sampler)


ROWS = TensorDataset(torch.arange(10.0), torch.arange(10))


class Endless(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(10))


REFUSED = {
    "shuffle=True": (lambda: DataLoader(ROWS, shuffle=True), "its sampler or shuffle"),
    "random sampler": (lambda: DataLoader(ROWS, sampler=RandomSampler(ROWS)), "its sampler or shuffle"),
    "weighted sampler": (
        lambda: DataLoader(ROWS, sampler=WeightedRandomSampler([1.0] * 10, 10)),
        "its sampler or shuffle",
    ),
    "subset sampler": (
        lambda: DataLoader(ROWS, sampler=SubsetRandomSampler(range(5))),
        "its sampler or shuffle",
    ),
    "batch sampler": (
        lambda: DataLoader(ROWS, batch_sampler=BatchSampler(SequentialSampler(ROWS), 2, drop_last=True)),
        "it has its own batch sampler",
    ),
    "no batching": (lambda: DataLoader(ROWS, batch_size=None), "it has its own batch sampler"),
    "workers": (lambda: DataLoader(ROWS, num_workers=1), "num_workers must be 0"),
    "iterable dataset": (lambda: DataLoader(Endless()), "its dataset is iterable only, or has no length"),
    "a list of batches": (lambda: [(torch.zeros(1), torch.zeros(1))], "pass a torch DataLoader"),
}


@pytest.mark.parametrize(("loader", "message"), REFUSED.values(), ids=REFUSED)
def test_a_loader_whose_accounting_would_be_false_is_refused(loader: Callable[[], Any], message: str) -> None:
    with pytest.raises(UnsafeTrainingError, match=f"^this data loader cannot become private: {message}"):
        require_convertible(loader())


def a_kernel() -> GradientKernel:
    return GradientKernel(torch.nn.Linear(2, 1), Blocks(64), one_row=True)


class Pairs(Dataset[dict[str, Any]]):
    """A dataset that is not a TensorDataset, with nested items."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"x": torch.full((2,), float(row)), "y": (row, torch.tensor(row))}


def test_items_of_any_dataset_are_collated_as_its_own_loader_would() -> None:
    loader = private_loader(DataLoader(Pairs()), sampler_of(1.0, UnitIndex(None, 10)), a_kernel())

    (batch,) = list(loader)

    assert batch["x"].shape == (64, 2)
    assert batch["x"][:10].tolist() == [[row, row] for row in range(10)]
    assert batch["y"][1].tolist() == [*range(10), *[0] * 54]


def test_an_empty_sample_gives_a_block_of_zeros_of_the_right_shape() -> None:
    for dataset in (Pairs(), ROWS):
        loader = private_loader(DataLoader(dataset), sampler_of(1e-9, UnitIndex(None, 10)), a_kernel())
        batch = next(iter(loader))

        first = batch["x"] if isinstance(batch, dict) else batch[0]
        assert first.shape == ((64, 2) if isinstance(batch, dict) else (64,))
        assert not first.any()


@pytest.mark.parametrize(("rows", "size"), [(0, 64), (1, 64), (64, 64), (65, 128), (129, 256), (1000, 1024)])
def test_the_size_of_a_block_is_the_first_one_times_a_power_of_two(rows: int, size: int) -> None:
    blocks = Blocks(64)

    assert blocks.rows_for(rows) == size
    assert blocks.weight(size) == 1.0
    assert Blocks(192).weight(384) == Blocks(192).weight(192) == 1.5


def test_the_size_of_a_block_follows_from_declared_numbers_and_is_hardly_ever_exceeded() -> None:
    for rate, nominal in ((0.05, 1000), (0.5, 24), (1.0, 700), (1e-3, 100_000)):
        blocks = declared_blocks(rate, nominal)
        assert blocks.first % 64 == 0
        assert binom.sf(blocks.first, nominal, rate) < 1e-8
        assert blocks.first < 2 * (rate * nominal + 64)


def test_items_that_are_not_tensors_cannot_be_emptied() -> None:
    loader = DataLoader([1, 2, 3], collate_fn=lambda items: "text")

    with pytest.raises(UnsafeTrainingError, match="collate rows to tensors"):
        next(iter(private_loader(loader, sampler_of(1e-9, UnitIndex(None, 3)), a_kernel())))
