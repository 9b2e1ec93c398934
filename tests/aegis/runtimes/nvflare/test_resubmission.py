"""Which lost FLARE jobs are submitted anew, and in which words a command gives up; FLARE itself is played here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aegis.errors import RunAborted, TransportUnavailable
from aegis.runs import nvflare_client as flare
from aegis.runs.folder import RunFolder
from aegis.runs.nvflare_heartbeat import PULSE
from aegis.runs.nvflare_outcome import record_end
from aegis.runtimes.nvflare.options import FlareHosting, FlareOptions

LOST, FINISHES, NEVER_BEGINS = "is lost", "finishes", "never begins"


@dataclass
class Played:
    """FLARE jobs that end one after the other as a test says; ``rounds`` are completed by each, ``reported`` in all."""

    folder: RunFolder
    fates: list[str]
    rounds: int = 0
    hosting: FlareHosting = FlareHosting.STARTUP_KIT
    has_state: bool = True
    said: list[str] = field(default_factory=list)
    started: int = 0
    reported: int = 0

    @contextmanager
    def hosted(self, *_: Any) -> Iterator[Any]:
        fate = self.fates[self.started]
        self.started += 1
        self.reported += self.rounds
        if fate != NEVER_BEGINS:
            (self.folder.path / PULSE).write_text(f'{{"pid": 0, "number": {self.started}}}')
        if fate == FINISHES:
            record_end(self.folder, None)
        words = "FLARE's server localhost:1 does not answer" if fate == NEVER_BEGINS else None
        yield SimpleNamespace(ended=True, job_is_over=True, wait_for_exit=lambda: None, own_words=lambda: words)

    def see_through(self) -> None:
        (self.folder.path / PULSE).parent.mkdir()
        folder = SimpleNamespace(path=self.folder.path, has_state=self.has_state)
        plan: Any = SimpleNamespace(folder=folder, flare=FlareOptions(self.hosting), say=self.said.append)
        job: Any = None
        flare._submit_until_ended(job, plan, self)  # type: ignore[arg-type]

    def look(self) -> None:
        """As a follower of the run folder."""


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(*fates: str, **options: Any) -> Played:
        made = Played(RunFolder(tmp_path), list(fates), **options)
        monkeypatch.setattr(flare, "_hosted", made.hosted)
        return made

    return make


def test_a_job_that_is_lost_is_submitted_anew_and_told_of(played: Any) -> None:
    run = played(LOST, LOST, FINISHES)

    run.see_through()

    assert run.started == 3
    retried = "the job is submitted again, and continues after round 0"
    assert run.said == [f"NVIDIA FLARE ended the job before the coordinator did: {retried}"] * 2


def test_a_run_that_makes_progress_survives_any_number_of_losses(played: Any) -> None:
    run = played(*[LOST] * 9, FINISHES, rounds=1)

    run.see_through()

    assert run.said[-1].endswith("continues after round 9")


def test_the_third_loss_without_a_round_ends_the_command_in_its_own_words(played: Any) -> None:
    run = played(*[LOST] * 9)

    with pytest.raises(RunAborted, match=r"^NVIDIA FLARE ended the job before the coordinator did; FLARE's own logs: "):
        run.see_through()

    assert run.started == 3


def test_a_job_that_never_began_is_not_tried_again(played: Any) -> None:
    run = played(NEVER_BEGINS, has_state=False)

    with pytest.raises(TransportUnavailable, match=r"^FLARE's server localhost:1 does not answer; FLARE's own logs: "):
        run.see_through()


def test_a_server_that_is_not_back_yet_is_given_the_tries_that_are_left(played: Any) -> None:
    run = played(LOST, NEVER_BEGINS, FINISHES)

    run.see_through()

    assert run.started == 3


@pytest.mark.parametrize("fate", [LOST, NEVER_BEGINS])
def test_a_simulator_ends_with_its_command(played: Any, fate: str) -> None:
    run = played(fate, hosting=FlareHosting.SIMULATOR)

    with pytest.raises(RunAborted, match=r"; FLARE's own log: .*nvflare\.log$"):
        run.see_through()

    assert run.said == []
