"""The command that waits raises what ended the coordinator in FLARE's process."""

from __future__ import annotations

from pathlib import Path

import pytest

from aegis.errors import (
    AegisError,
    BudgetRefused,
    InvalidJob,
    RunFolderError,
    RunPaused,
    RunRefused,
    TooFewUpdates,
)
from aegis.runs import RunFolder
from aegis.runs.nvflare_outcome import forget_end, has_ended, raise_as_ended, record_end
from coreason_enclave.errors import ConfigurationError


@pytest.mark.parametrize(
    "error",
    [InvalidJob("no noise"), RunPaused("round 2 waits"), RunFolderError("damaged"), ConfigurationError("site.toml")],
    ids=lambda error: type(error).__name__,
)
def test_an_error_comes_back_as_it_was(tmp_path: Path, error: Exception) -> None:
    folder = RunFolder(tmp_path)
    record_end(folder, error)

    assert has_ended(folder)
    with pytest.raises(type(error)) as again:
        raise_as_ended(folder)
    assert (type(again.value), str(again.value)) == (type(error), str(error))


@pytest.mark.parametrize("kind", [RunPaused, RunRefused, BudgetRefused])
def test_a_pause_comes_back_with_the_reason_of_each_site(tmp_path: Path, kind: type[RunPaused]) -> None:
    folder, paused = RunFolder(tmp_path), kind("round 1 cannot be completed")
    paused.reasons = {"north": "policy", "south": "no_reply"}
    record_end(folder, paused)

    with pytest.raises(kind) as again:
        raise_as_ended(folder)
    assert type(again.value) is kind
    assert again.value.reasons == {"north": "policy", "south": "no_reply"}


def test_a_note_without_reasons_is_read_as_one_without(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_json("nvflare-end.json", {"error": "RunPaused", "message": "round 1 waits"})
    with pytest.raises(RunPaused) as again:
        raise_as_ended(folder)
    assert again.value.reasons == {}


def test_an_error_that_needs_more_than_a_message_comes_back_as_a_refusal(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    error = TooFewUpdates.__new__(TooFewUpdates, "too few")
    Exception.__init__(error, "too few updates")
    record_end(folder, error)

    with pytest.raises(AegisError, match="too few updates") as again:
        raise_as_ended(folder)
    assert type(again.value) is AegisError


def test_a_coordinator_that_finished_raises_nothing(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    record_end(folder, None)
    raise_as_ended(folder)

    forget_end(folder)
    assert not has_ended(folder)
