"""The command that waits raises what ended the coordinator in FLARE's process."""

from __future__ import annotations

from pathlib import Path

import pytest

from aegis.errors import AegisError, InvalidJob, RunFolderError, RunPaused, TooFewUpdates
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
