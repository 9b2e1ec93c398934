"""Robust rules over real sites: f hostile ones move nothing beyond the honest, f + 1 do.

Sites are opened with injected keys, so an honest site sends the same update whoever the others are: what an attack did
is compared with it bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aegis.attacks.hostile.eavesdropper import Overheard
from aegis.attacks.hostile.insider import Insider
from aegis.runtimes.in_process import initial_model
from tests.support.studies import Federation, Forges, Study, a_job, where

FIVE = tuple(f"clinic-{n}" for n in range(1, 6))
Vector = Any
Attack = Callable[[Vector], Vector]


@dataclass
class Cohort:
    """Five created sites, and what each of them honestly sends in round 1 of a job, as one vector by name."""

    federation: Federation
    sites: list[Any]
    root: Path
    honest: dict[str, dict[str, Vector]] = field(default_factory=dict)

    def updates(self, rule: str, declared: int) -> dict[str, Vector]:
        if rule not in self.honest:
            overheard = Overheard(FIVE)
            listening = where(FIVE, lambda site: overheard.listen(site.config.site_id, Insider(site.session)))
            Study(self.federation, self.root / rule, self.sites).run(self.job(rule, declared), listening)
            self.honest[rule] = {name: vector(update) for name, update in overheard.rounds()[1].items()}
        return self.honest[rule]

    def job(self, rule: str, declared: int) -> Any:
        return a_job(self.federation, job_id=f"study-{rule}", rounds=1, aggregator=rule, num_byzantine=declared)

    def attacked(self, folder: Path, rule: str, declared: int, hostile: int, attack: Attack) -> Attacked:
        """One round in which the first ``hostile`` sites all send what ``attack`` makes of what the others send."""
        honest = np.stack([self.updates(rule, declared)[name] for name in FIVE[hostile:]])
        job, forged = self.job(rule, declared), attack(honest)
        start, run = initial_model(job), Study(self.federation, folder, self.sites)

        def change(said: dict[str, Any], arrays: Any) -> tuple[dict[str, Any], Any]:
            return said, arrays_of(forged, arrays)

        model = run.run(job, where(FIVE[:hostile], lambda site: Forges(site, change)))
        (record,) = run.history()
        assert len(record.admitted) == 5, "insiders: no signature and no screening reveals them"
        return Attacked(vector({name: model[name] - start[name] for name in model}), honest, record.used)


@dataclass(frozen=True)
class Attacked:
    """What one round came to, what its honest sites sent (one a row), and whose updates were used."""

    result: Vector
    honest: Vector
    used: tuple[str, ...]

    @property
    def within_the_honest(self) -> bool:
        slack = 1e-5 * np.abs(self.honest).max()
        low, high = self.honest.min(axis=0) - slack, self.honest.max(axis=0) + slack
        return bool(((low <= self.result) & (self.result <= high)).all())


def arrays_of(values: Vector, like: dict[str, Any]) -> dict[str, Any]:
    arrays, at = {}, 0
    for name in sorted(like):
        arrays[name] = values[at : at + like[name].size].astype(np.float32).reshape(like[name].shape)
        at += like[name].size
    return arrays


def vector(arrays: dict[str, Any]) -> Vector:
    return np.concatenate([arrays[name].astype(np.float64).reshape(-1) for name in sorted(arrays)])


@pytest.fixture(scope="module")
def cohort(federation_at: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    root = tmp_path_factory.mktemp("breakdown")
    federation = federation_at(root / "sites")
    sites = [federation.create(name, rows=number) for number, name in enumerate(FIVE, start=1)]
    return Cohort(federation, sites, root)


def far_away(honest: Vector) -> Vector:
    return np.full(honest.shape[1], 100.0)


@pytest.mark.parametrize("rule", ["trimmed_mean", "median"])
@pytest.mark.parametrize("hostile", [0, 1, 2])
def test_up_to_f_hostile_sites_leave_every_coordinate_within_the_honest_ones(
    cohort: Cohort, tmp_path: Path, rule: str, hostile: int
) -> None:
    assert cohort.attacked(tmp_path, rule, 2, hostile, far_away).within_the_honest


@pytest.mark.parametrize("rule", ["trimmed_mean", "median"])
def test_one_hostile_site_more_than_f_moves_the_model_wherever_it_wants(
    cohort: Cohort, tmp_path: Path, rule: str
) -> None:
    attacked = cohort.attacked(tmp_path, rule, 2, 3, far_away)
    assert not attacked.within_the_honest
    assert attacked.result.min() > 10.0


def test_the_mean_which_tolerates_none_is_moved_by_one(cohort: Cohort, tmp_path: Path) -> None:
    assert not cohort.attacked(tmp_path, "mean", 0, 1, far_away).within_the_honest


def beside_the_honest(honest: Vector) -> Vector:
    """Where two colluding updates look more central to Krum (f = 1, n = 5) than any honest one, and one alone does not.

    The score of an update is the sum of its squared distances to its n - f - 2 = 2 nearest. Two at one place have no
    distance to each other, which halves their score.
    """
    best = min(krum_score(honest, at) for at in range(len(honest)))
    outward = np.eye(honest.shape[1])[0]
    places = honest.mean(axis=0) + np.linspace(0, 50, 5001)[:, None] * outward
    nearest = np.sort(((places[:, None, :] - honest[None]) ** 2).sum(axis=2), axis=1)
    fits = (nearest[:, 0] < 0.9 * best) & (nearest[:, :2].sum(axis=1) > 1.1 * best)
    return places[np.flatnonzero(fits)[-1]]


def krum_score(updates: Vector, at: int) -> float:
    return float(np.sort(((updates - updates[at]) ** 2).sum(axis=1))[1:3].sum())


def test_krum_with_f_of_one_is_not_deceived_by_one_and_is_by_two(cohort: Cohort, tmp_path: Path) -> None:
    one = cohort.attacked(tmp_path / "one", "krum", 1, 1, beside_the_honest)
    two = cohort.attacked(tmp_path / "two", "krum", 1, 2, beside_the_honest)
    assert one.used[0] in FIVE[1:]
    assert two.used[0] in FIVE[:2]
    assert not two.within_the_honest


def test_multi_krum_with_f_of_one_leaves_one_out_and_takes_one_of_two_in(cohort: Cohort, tmp_path: Path) -> None:
    one = cohort.attacked(tmp_path / "one", "multi_krum", 1, 1, far_away)
    two = cohort.attacked(tmp_path / "two", "multi_krum", 1, 2, far_away)
    assert set(one.used) <= set(FIVE[1:])
    assert one.within_the_honest
    assert set(two.used) & set(FIVE[:2])
    assert not two.within_the_honest
