"""Whole rounds over small real sites, whose coordinator promises client-level privacy."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aegis.client_privacy import ClientPrivacy, CohortSample, noised_mean, sampled_sites
from aegis.client_privacy.cohort_sampling import noise_keystream, sampling_keystream
from aegis.errors import BudgetRefused, InvalidJob, RunPaused
from aegis.runtimes.in_process import initial_model
from aegis.stores.run_state import RoundRecord
from coreason_enclave.errors import LedgerError, Reason
from coreason_enclave.schemas import FederationJob
from coreason_enclave.wire.updates import Arrays, encode_arrays
from tests.support.studies import (
    THREE,
    Fuse,
    MakeStudy,
    OneByOne,
    PowerFailure,
    Refuses,
    Relay,
    Study,
    watched,
    where,
)

SHARES = 4


def run_kept(run: Study, promises: Any, job: FederationJob, *arguments: Any, **options: Any) -> Any:
    """The run, with the promise kept in a folder beside it."""
    with promises.kept(job, folder=options.pop("account", None)) as privacy:
        return run.run(job, *arguments, client_privacy=options.pop("privacy", privacy), **options)


def drawn_in(job: FederationJob, privacy: ClientPrivacy, record: RoundRecord, base: str) -> tuple[str, ...]:
    draw = CohortSample(job.digest(), record.round_number, 1, base, 3)
    stream = sampling_keystream(privacy.keys.key(job.digest()), draw)
    return sampled_sites(THREE, draw, sample_rate=privacy.config.sample_rate, keystream=stream)


def charged(promises: Any, job: FederationJob, folder: Path | None = None) -> list[tuple[int, bool]]:
    """The rounds in the coordinator's ledger, and whether each is committed."""
    with promises.kept(job, folder=folder) as privacy:
        parsed = [json.loads(row["payload"]) for row in json.loads(privacy.ledger.export())["entries"]]
    done = {entry["round_number"] for entry in parsed if entry["type"] == "committed"}
    numbers = [entry["plan"]["round_number"] for entry in parsed if entry["type"] == "reserved"]
    return [(number, number in done) for number in numbers]


class Overhears(Relay):
    """Notes which nodes each round's orders go to."""

    asked: list[list[int]]

    def __init__(self, grid: Any) -> None:
        super().__init__(grid)
        type(self).asked = []

    def receive(self, replies: list[Any]) -> list[Any]:
        self.asked.append([message.metadata.dst_node_id for message in self.sent])
        return replies


# --- what a round does ----------------------------------------------------------------------------------------


def test_only_the_drawn_sites_are_asked_and_every_round_is_paid_for(study: MakeStudy, promises: Any) -> None:
    run, job = study(), promises.job(rounds=6, client={"target_epsilon": 39.0})
    run_kept(run, promises, job, grid=Overhears)
    bases = run.state().models
    with promises.kept(job) as privacy:
        expected = [drawn_in(job, privacy, each, base) for each, base in zip(run.history(), bases, strict=False)]
        assert privacy.guarantee() is not None
    assert [record.admitted for record in run.history()] == expected
    assert len({len(sites) for sites in expected}) > 1  # a Poisson sample, of no fixed size
    assert [len(each) for each in Overhears.asked] == [len(sites) for sites in expected if sites]
    assert charged(promises, job) == [(number, True) for number in range(1, 7)]


def test_the_model_moves_by_the_noised_clipped_sum_over_the_fixed_denominator(study: MakeStudy, promises: Any) -> None:
    """Recomputed from the updates that the sites sent, with numpy alone; only the keystream's draws are borrowed."""
    run, job = study(), promises.job(rounds=1, client={"sample_rate": 0.9})
    sent: dict[str, Arrays] = {}

    with promises.kept(job) as privacy:
        combine = ClientPrivacy.combine

        class Noting(ClientPrivacy):
            def combine(self, draw: CohortSample, updates: Any, layout: Any) -> Any:
                updates = list(updates)
                sent.update({update.site_id: update for update in updates})
                return combine(self, draw, updates, layout)

        model = run.run(job, client_privacy=Noting(**vars(privacy)))
        draw = CohortSample(job.digest(), 1, 1, run.state().models[0], 3)
        stream = noise_keystream(privacy.keys.key(job.digest()), draw, [sent[site] for site in sorted(sent)])
    assert len(sent) >= 2
    base = initial_model(job)
    zeros = {name: np.zeros(array.shape) for name, array in base.items()}
    noise = noised_mean(zeros, stream, draw=1, deviation=0.5, expected_sites=1.0)
    for name, array in base.items():
        total = np.zeros(array.shape)
        for update in sent.values():
            norm = math.sqrt(sum(float((each.astype(float) ** 2).sum()) for each in update.arrays.values()))
            total += update.arrays[name] * min(1.0, 0.5 / norm)
        assert model[name] == pytest.approx(array + (total + noise[name]) / (0.9 * 3), abs=1e-5)


def test_a_round_that_draws_nobody_releases_noise_without_asking_anybody(study: MakeStudy, promises: Any) -> None:
    run, job = study(), promises.job(client={"sample_rate": 1e-6, "noise_multiplier": 5.0})
    run_kept(run, promises, job, grid=Overhears)
    assert Overhears.asked == []
    assert [record.admitted for record in run.history()] == [(), ()]
    models = [run.store.load_model(digest) for digest in run.state().models]
    for before, after in pairwise(models):
        assert any(not np.array_equal(before[name], after[name]) for name in before)


def test_drawn_sites_that_refuse_count_as_zero_and_the_round_is_not_repeated(study: MakeStudy, promises: Any) -> None:
    """Without client-level privacy, three of three refusing would pause the run."""
    run, job = study(), promises.job(client={"sample_rate": 1.0})
    run_kept(run, promises, job, where(THREE, lambda site: Refuses(site.session)))
    assert [record.admitted for record in run.history()] == [(), ()]
    assert run.history()[0].refused == dict.fromkeys(THREE, "policy")
    assert charged(promises, job) == [(1, True), (2, True)]


def test_too_few_enrolled_sites_pause_the_run_before_anything_is_charged(study: MakeStudy, promises: Any) -> None:
    class NeverEnrols(Refuses):
        def enrol(self, message: Any) -> Any:
            raise LedgerError("not today", reason=Reason.POLICY)

    run, job = study(), promises.job()
    with pytest.raises(RunPaused, match="2 sites eligible"):
        run_kept(run, promises, job, where(["clinic-3"], lambda site: NeverEnrols(site.session)))
    assert charged(promises, job) == []
    run_kept(run, promises, job)
    assert charged(promises, job) == [(1, True), (2, True)]


def test_the_population_stays_what_it_was_when_a_site_enrols_late(study: MakeStudy, promises: Any) -> None:
    run, job = study(4), promises.job(rounds=3)

    class LosesPowerInTheSecondRound(Relay):
        def receive(self, replies: list[Any]) -> list[Any]:
            if run.history():
                raise PowerFailure
            return replies

    with pytest.raises(PowerFailure):
        run_kept(run, promises, job, grid=LosesPowerInTheSecondRound, sites=run.sites[:3])
    run_kept(run, promises, job)
    state = run.state()
    assert state.client_draw is not None
    assert (len(state.enrolments), state.client_draw.population) == (4, 3)


def test_whoever_drives_the_strategy_by_hand_completes_a_round_that_asks_nobody(
    study: MakeStudy, promises: Any
) -> None:
    from flwr.app import ConfigRecord

    from aegis.federated_coordinator import _record

    run, job = study(), promises.job(client={"sample_rate": 1e-9})
    with (
        promises.kept(job) as privacy,
        run.opened() as opened,
        run.coordinator(job, opened, client_privacy=privacy) as coordinator,
    ):
        initial = _record(initial_model(job))
        orders = list(coordinator.configure_train(1, initial, ConfigRecord(), opened.grid))
        model, _ = coordinator.aggregate_train(1, [])
    assert orders == []
    assert model is not None
    assert len(run.history()) == 1


# --- when it cannot be afforded -------------------------------------------------------------------------------


def test_a_round_that_cannot_be_afforded_is_not_drawn_and_ends_the_run_for_good(
    study: MakeStudy, promises: Any
) -> None:
    run, job = study(), promises.job(rounds=5, client={"target_epsilon": 4.0})
    with pytest.raises(BudgetRefused, match="cannot be completed"):
        run_kept(run, promises, job)
    completed, reserved = len(run.history()), run.reserved_rounds()
    assert 1 <= completed < 5
    with pytest.raises(BudgetRefused):
        run_kept(run, promises, job)
    assert len(run.history()) == completed
    assert charged(promises, job) == [(number, True) for number in range(1, completed + 1)]
    assert run.reserved_rounds() == reserved  # nor did any site spend anything on it


def test_a_ledger_that_cannot_be_used_draws_nobody(study: MakeStudy, promises: Any) -> None:
    run, job = study(), promises.job()
    with promises.kept(job) as privacy:
        privacy.ledger.close()
        with pytest.raises(LedgerError, match="closed"):
            run.run(job, client_privacy=privacy)
    assert run.state().nonces == {}
    assert set(map(tuple, run.reserved_rounds().values())) == {()}


# --- the sites' own guarantee ---------------------------------------------------------------------------------


def test_the_sites_own_privacy_is_what_it_was(study: MakeStudy, promises: Any) -> None:
    """What a drawn site reserves and releases is what it would without; only the mean is another."""
    run, job = study(), promises.job(rounds=1, client={"sample_rate": 1.0})
    run_kept(run, promises, job)
    record = run.history()[0]
    assert record.steps == dict.fromkeys(THREE, 2)
    reserved = [each for site in run.sites for each in site.ledger_entries() if each["type"] == "reserved"]
    assert [(each["plan"]["unit"], each["plan"]["noise_multiplier"]) for each in reserved] == [("person", 2.0)] * 3


def test_client_level_privacy_excuses_no_site_from_its_own_on_a_private_lineage(federation: Any, promises: Any) -> None:
    from coreason_enclave.errors import JobRejected
    from coreason_enclave.policy import LineagePolicy, SiteConfig
    from tests.conftest import site_config

    config: SiteConfig = site_config("clinic-1", federation.signer.public_hex)
    lineage: LineagePolicy = config.lineages[0].model_copy(update={"public": False})
    job = promises.job(privacy={"mechanism": "NON_PRIVATE", "target_epsilon": None, "noise_multiplier": None})
    with pytest.raises(JobRejected, match="non-private training on it is refused"):
        config.policy.check(job, lineage)


# --- a promise is neither dropped nor invented ----------------------------------------------------------------


@pytest.mark.parametrize("given", ["nothing", "of another job", "of a job without"])
def test_a_coordinator_refuses_a_promise_that_is_not_this_jobs(study: MakeStudy, promises: Any, given: str) -> None:
    run, job = study(), promises.job()
    with promises.kept(promises.job(rounds=3)) as other:
        if given == "of a job without":
            job = job.model_copy(update={"client_privacy": None})
        with pytest.raises(InvalidJob, match="client_privacy"):
            run.run(job, client_privacy=None if given == "nothing" else other)


# --- power fails ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(federation_at: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run of two rounds, in which somebody is drawn in the first and nobody in the second."""
    from tests.aegis.client_privacy.conftest import Promises
    from tests.support.studies import Undisturbed

    root = tmp_path_factory.mktemp("undisturbed")
    federation = federation_at(root / "founded")
    sites = [federation.create(f"clinic-{n}", rows=n) for n in (1, 2, 3)]
    promises = Promises(root / "unused", federation.job)
    for number in range(100):
        job = promises.job(job_id=f"study-{number}", client={"sample_rate": 0.4}, server_optimizer=ADAM)
        first, fuse = Undisturbed(federation, job, root / "founded", sites, b"", 0), Fuse()
        run = first.again(root / f"first-{number}")
        model = run_all(run, promises, job, fuse)
        if [bool(record.admitted) for record in run.history()] == [True, False]:
            return promises, replace(first, model=encode_arrays(model), writes=fuse.passed)
    raise AssertionError("no such job")


ADAM = {"name": "adam", "learning_rate": 0.1}


def run_all(run: Study, promises: Any, job: FederationJob, fuse: Fuse | None = None) -> Any:
    """Run or go on with it; ``fuse`` counts, and fails at, every durable write, the coordinator's ledger's as well."""
    options = {} if fuse is None else watched(fuse, run.folder)
    with promises.kept(job, folder=run.folder / "account") as privacy:
        if fuse is not None:
            ledger = copy.copy(privacy.ledger)
            for name in ("register", "reserve", "commit"):
                setattr(ledger, name, fuse.through(getattr(privacy.ledger, name)))
            privacy = replace(privacy, ledger=ledger)
        return run.run(job, grid=OneByOne, client_privacy=privacy, **options)


@pytest.mark.parametrize("share", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, SHARES))])
def test_power_may_fail_after_any_durable_write_and_the_run_goes_on_to_the_same_model(
    undisturbed: Any, tmp_path: Path, share: int
) -> None:
    promises, calm = undisturbed
    assert calm.writes > 30
    for number in range(1 + share, calm.writes + 1, SHARES):
        run = calm.again(tmp_path / str(number))
        with pytest.raises(PowerFailure):
            run_all(run, promises, calm.job, Fuse(number, "after"))
        assert encode_arrays(run_all(run, promises, calm.job)) == calm.model, f"write {number}"
        assert charged(promises, calm.job, run.folder / "account") == [(1, True), (2, True)]


def test_the_same_job_in_another_run_folder_gives_the_same_model_and_costs_nothing_more(
    undisturbed: Any, tmp_path: Path
) -> None:
    promises, calm = undisturbed
    run = calm.again(tmp_path / "one")
    run_all(run, promises, calm.job)
    second = Study(run.federation, tmp_path / "second", run.sites)
    account = run.folder / "account"
    assert encode_arrays(run_kept(second, promises, calm.job, account=account)) == calm.model
    assert charged(promises, calm.job, account) == [(1, True), (2, True)]


def test_a_round_that_released_something_else_before_is_drawn_anew_and_charged_again(
    study: MakeStudy, promises: Any, tmp_path: Path
) -> None:
    """In a second run folder a site that answered before refuses: other data under the same draw would be free."""
    run, job = study(), promises.job(rounds=4, client={"sample_rate": 1.0, "noise_multiplier": 2.0})

    class LosesPowerAfterTheFirstRound(Relay):
        def receive(self, replies: list[Any]) -> list[Any]:
            if run.history():
                raise PowerFailure
            return replies

    with pytest.raises(PowerFailure):
        run_kept(run, promises, job, grid=LosesPowerAfterTheFirstRound)
    assert charged(promises, job) == [(1, True), (2, False)]
    second = Study(run.federation, tmp_path / "second", run.sites)
    with pytest.raises(BudgetRefused, match="4 steps in all"):
        run_kept(second, promises, job, where(["clinic-2"], lambda site: Refuses(site.session)))
    anew = [line for line in second.audit() if line["outcome"] == "drawn anew"]
    assert [line["details"]["round"] for line in anew] == [1]
    # Two rounds were reserved by the first run; the second drew round 1 anew (5 = 1 + 4) and may draw one more.
    assert charged(promises, job) == [(1, True), (2, False), (5, True), (6, True)]
    # Of the sites none answers round 2 from two models, so that round is noise alone.
    assert [record.admitted for record in second.history()] == [("clinic-1", "clinic-3"), ()]
