"""The settings that a host keeps for itself: missing or malformed, they are refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aegis.errors import RunFolderError
from aegis.runtimes.nvflare.settings import ServerSettings, SiteSettings, read_server_settings, write_settings
from coreason_enclave.federation.nvflare.settings import load_local_settings

GOOD = {"version": 1, "federation": "/srv/federation", "runs": "/srv/runs"}

BAD: dict[str, Any] = {
    "not there": None,
    "no JSON": "federation = here",
    "a list": [GOOD],
    "another version": {**GOOD, "version": 2},
    "no federation": {"version": 1, "runs": "/srv/runs"},
    "a relative path": {**GOOD, "runs": "runs"},
    "a field of its own": {**GOOD, "signing_key": "secret"},
}


@pytest.mark.parametrize("document", BAD.values(), ids=BAD)
def test_a_server_without_usable_settings_refuses(tmp_path: Path, document: Any) -> None:
    if document is not None:
        text = document if isinstance(document, str) else json.dumps(document)
        (tmp_path / "aegis.json").write_text(text)

    with pytest.raises(RunFolderError, match=r"aegis\.json"):
        read_server_settings(tmp_path)


def test_a_servers_settings_are_read_as_they_were_written(tmp_path: Path) -> None:
    settings = ServerSettings(version=1, federation="/srv/federation", runs="/srv/runs")
    write_settings(tmp_path / "local", settings)

    assert read_server_settings(tmp_path / "local") == settings
    assert (tmp_path / "local" / "aegis.json").stat().st_mode & 0o777 == 0o600


def test_what_is_written_for_a_site_its_executor_reads(tmp_path: Path) -> None:
    write_settings(
        tmp_path, SiteSettings(version=1, runs="session", sites={"clinic-1": "/srv/clinic-1"}, unsafe_seed=7)
    )

    read = load_local_settings(tmp_path)

    assert (read.runs.value, read.folder_of("clinic-1"), read.unsafe_seed) == ("session", Path("/srv/clinic-1"), 7)
