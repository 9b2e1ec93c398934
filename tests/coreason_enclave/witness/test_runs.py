"""Whole runs over sites that remember the log: lost, rewritten, and honest with answers that were lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aegis.errors import RunPaused
from coreason_enclave.crypto.encoding import canonical_json
from coreason_enclave.crypto.hash_log import HashLog
from coreason_enclave.wire.checkpoints import LogSeen, open_checkpoint
from coreason_enclave.witness import CheckpointStore
from tests.support.studies import THREE, Forges, MakeStudy, Refuses, Study, a_job, where

Federation = Any


def store_of(run: Study, site: str) -> CheckpointStore:
    (found,) = [each for each in run.sites if each.config.site_id == site]
    return CheckpointStore(found.folder / "checkpoints")


def held_by(run: Study, site: str) -> list[int]:
    """Number of lines of the newest checkpoint of each log."""
    return [open_checkpoint(log.last, log.coordinator_key).size for log in store_of(run, site).logs()]


class StopsAfter(Exception):
    """Ends the coordinator's process, as far as its sites can tell."""


def stopping_after(rounds: int) -> Callable[[Any], None]:
    def observe(record: Any) -> None:
        if record.round_number == rounds:
            raise StopsAfter

    return observe


def interrupted(study: MakeStudy, job: Any) -> Study:
    """Two of three rounds were completed; a backup was made after the first."""
    run: Study = study()
    for completed in (1, 2):
        with pytest.raises(StopsAfter):
            run.run(job, observe=stopping_after(completed))
        if completed == 1:
            shutil.copytree(run.folder, backup_of(run))
    return run


def backup_of(run: Study) -> Path:
    return run.folder.with_name("backup")


def restored(run: Study) -> None:
    shutil.rmtree(run.folder)
    shutil.copytree(backup_of(run), run.folder)


def rewritten(run: Study, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """The log under an unbroken chain, with other lines: what its owner can do."""
    path, lines = run.folder / "audit.jsonl", run.audit()
    change(lines)
    path.unlink()
    log = HashLog(path, clock=lambda: 1_800_000_000.0)
    for line in lines:
        log.append(**{name: line[name] for name in ("actor", "action", "outcome", "reason", "details")})
    log.close()


LOST: dict[str, Callable[[Study], object]] = {
    "the run's folder is restored from an older copy": restored,
    "an early line is another one": lambda run: rewritten(run, lambda lines: lines[1]["details"].update(x=1)),
    "the run begins anew in an empty folder": lambda run: [
        shutil.rmtree(run.folder),
        HashLog(run.folder / "audit.jsonl").close(),
    ],
}


@pytest.mark.parametrize("lose", LOST.values(), ids=LOST)
def test_a_coordinator_that_lost_its_log_or_wrote_it_anew_is_refused_by_every_site_and_nothing_is_spent(
    study: MakeStudy, federation: Federation, lose: Callable[[Study], object]
) -> None:
    job = a_job(federation, rounds=3)
    run = interrupted(study, job)
    before, spent = held_by(run, "clinic-1"), [site.ledger_entries() for site in run.sites]
    lose(run)
    with pytest.raises(RunPaused, match="clinic-1: log_forked, clinic-2: log_forked, clinic-3: log_forked"):
        run.run(job)
    assert [site.ledger_entries() for site in run.sites] == spent
    assert held_by(run, "clinic-1") == before
    for site in THREE:
        assert store_of(run, site).logs()[0].refused
    told = [line for line in run.audit() if (line["action"], line["outcome"]) == ("witness", "refused")]
    assert {line["details"]["site"] for line in told} == set(THREE)


def test_once_a_person_at_each_site_acknowledges_a_lost_log_the_run_goes_on(
    study: MakeStudy, federation: Federation
) -> None:
    job = a_job(federation, rounds=3)
    run = interrupted(study, job)
    restored(run)
    with pytest.raises(RunPaused):
        run.run(job)
    for site in THREE:
        store = store_of(run, site)
        (log,) = store.logs()
        latest = open_checkpoint(log.refused[-1].shown, log.coordinator_key)
        taken = LogSeen(size=latest.size, root=latest.root)
        store.acknowledge(job.digest(), log.coordinator_key, taken, by="A. Ito", why="the disk", now=0.0)
    run.run(job)
    assert [record.round_number for record in run.history()] == [1, 2, 3]
    assert store_of(run, "clinic-1").logs()[0].origin == store_of(run, "clinic-3").logs()[0].origin
    assert all(len(store_of(run, site).logs()[0].abandoned) == 1 for site in THREE)


def test_a_resumed_run_whose_log_is_whole_goes_on_without_a_word(study: MakeStudy, federation: Federation) -> None:
    job = a_job(federation, rounds=3)
    run = interrupted(study, job)
    run.run(job)
    assert [record.refused for record in run.history()] == [{}] * 3
    assert store_of(run, "clinic-2").logs()[0].refused == ()


class LosesAnswers(Refuses):
    """A site that trains, keeps what it was shown, and whose first answer is lost on its way."""

    def run(self, message: Any) -> Any:
        answer = self.session.run(message)
        if self.times > 0:
            self.times -= 1
            raise RuntimeError("the answer is lost")
        return answer


def test_a_site_whose_answer_was_lost_is_asked_what_it_saw_and_takes_part_in_the_next_round(
    study: MakeStudy, federation: Federation
) -> None:
    run, handler = study(4), {}

    def loses(site: Any) -> LosesAnswers:
        return handler.setdefault(site.config.site_id, LosesAnswers(site.session, times=1))

    run.run(a_job(federation, rounds=3, min_clients=3, round_deadline_s=8.0), where(["clinic-4"], loses))
    assert not any("log" in code for record in run.history() for code in record.refused.values())
    assert "clinic-4" in run.history()[-1].admitted
    assert store_of(run, "clinic-4").logs()[0].refused == ()


@pytest.mark.parametrize("seen", [{"size": 3, "root": "00" * 32}, {"size": 10_000, "root": "00" * 32}])
def test_an_update_that_says_it_saw_another_log_is_not_admitted_as_it_would_accuse_the_run(
    study: MakeStudy, federation: Federation, seen: dict[str, Any]
) -> None:
    def lie(said: dict[str, Any], arrays: Any) -> tuple[dict[str, Any], Any]:
        return {**said, "log_seen": seen}, arrays

    run = study(4)
    run.run(a_job(federation, rounds=1), where(["clinic-4"], lambda site: Forges(site, lie)))
    assert run.history()[0].refused == {"clinic-4": "log_forked"}
    assert run.state().quarantine["clinic-4"].reason == "log_forked"


def test_what_a_site_says_it_saw_is_the_checkpoint_of_its_order(study: MakeStudy, federation: Federation) -> None:
    run = study(3)
    run.run(a_job(federation, rounds=2))
    lines = (run.folder / "audit.jsonl").read_bytes().split(b"\n")[:-1]
    said = [json.loads(path.read_text()) for path in sorted(Path(run.folder / "state" / "updates").glob("*.json"))]
    assert len(said) == 6
    from coreason_enclave.crypto.envelope import unverified_payload
    from coreason_enclave.crypto.hash_log import tree_of

    tree = tree_of(b"\n".join(lines) + b"\n")
    for envelope in said:
        seen = json.loads(unverified_payload(canonical_json(envelope)))["log_seen"]
        assert seen["root"] == tree.root(seen["size"]).hex()
        assert 0 < seen["size"] < len(lines)
