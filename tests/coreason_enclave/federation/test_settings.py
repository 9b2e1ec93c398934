"""``coreason.json``: this host's own file, read strictly; what is missing or strange means that nothing is answered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coreason_enclave.errors import ConfigurationError
from coreason_enclave.federation.nvflare.settings import SETTINGS_FILE, LocalSettings, Runs, load_local_settings

GOOD: dict[str, Any] = {"version": 1, "runs": "session", "sites": {"clinic-1": "/srv/clinic-1"}}


def written(folder: Path, text: str) -> Path:
    (folder / SETTINGS_FILE).write_text(text)
    return folder


def test_a_good_file_is_read(tmp_path: Path) -> None:
    settings = load_local_settings(written(tmp_path, json.dumps({**GOOD, "unsafe_seed": 7})))

    assert settings == LocalSettings(version=1, runs=Runs.SESSION, sites=GOOD["sites"], unsafe_seed=7)
    assert settings.folder_of("clinic-1") == Path("/srv/clinic-1")


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"runs": "thread"},
        {"runs": None},
        {"sites": {}},
        {"sites": {"clinic-1": "relative/path"}},
        {"sites": {"../clinic": "/srv"}},
        {"sites": ["/srv/clinic-1"]},
        {"sites": None},
        {"unsafe_seed": -1},
        {"unsafe_seed": 1.5},
        {"runs": "agent", "unsafe_seed": 7},
        {"more": 1},
    ],
    ids=repr,
)
def test_a_field_that_is_wrong_missing_or_unknown_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    fields = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    with pytest.raises(ConfigurationError, match=SETTINGS_FILE):
        load_local_settings(written(tmp_path, json.dumps(fields)))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"version": 1, "version": 1}'])
def test_what_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError, match="not a JSON object"):
        load_local_settings(written(tmp_path, text))


def test_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read"):
        load_local_settings(tmp_path)


def test_a_client_that_is_not_listed_has_no_site() -> None:
    with pytest.raises(ConfigurationError, match="names no site folder"):
        LocalSettings.model_validate(GOOD).folder_of("clinic-2")
