"""``federation.toml`` as a registry of keys, certificates and revocations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from aegis.errors import RunFolderError
from aegis.federation.registry import FederationConfig, FederationFolder
from coreason_enclave.policy import Profile

A, B = "ab" * 32, "cd" * 32


def registry(**changes: Any) -> FederationConfig:
    return FederationConfig.model_validate(
        {"profile": Profile.DEVELOPMENT, "delta": 1e-5, "public_keys": {"site-a": A}, **changes}
    )


def test_an_admitted_participant_is_found_again_in_the_file(tmp_path: Path) -> None:
    folder = FederationFolder(tmp_path)
    admitted = registry().admitting("site-b", public_key=B, node_key="bm9kZQ==", certificate=A)
    folder.create(admitted.revoking("site-a"))

    assert folder.config() == admitted.revoking("site-a")
    assert folder.config().node_keys == {"site-b": "bm9kZQ=="}
    assert folder.config().revoked == ("site-a",)
    assert [file.name for file in tmp_path.iterdir()] == ["federation.toml"]


def test_a_federation_may_have_no_participant_yet(tmp_path: Path) -> None:
    FederationFolder(tmp_path).create(registry(public_keys={}))

    assert FederationFolder(tmp_path).config().public_keys == {}


def test_a_revoked_participant_is_not_admitted_by_the_way() -> None:
    revoked = registry().revoking("site-a")

    with pytest.raises(RunFolderError, match="site-a is revoked"):
        revoked.admitting("site-a", public_key=B, node_key="bm9kZQ==", certificate=B)


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({"public_key": A, "node_key": "bm9kZQ==", "certificate": B}, "two sites share one"),
        ({"public_key": "short", "node_key": "bm9kZQ==", "certificate": B}, "64 lower-case hex digits"),
        ({"public_key": B, "node_key": "not base64", "certificate": B}, "base64"),
        ({"public_key": B, "node_key": "bm9kZR==", "certificate": B}, "canonical base64"),
        ({"public_key": B, "node_key": "", "certificate": B}, "base64"),
        ({"public_key": B, "node_key": "bm9kZQ==", "certificate": "XY" * 32}, "64 lower-case hex digits"),
    ],
)
def test_an_entry_that_does_not_fit_is_refused(entry: dict[str, str], complaint: str) -> None:
    with pytest.raises(RunFolderError, match=complaint):
        registry().admitting("site-b", **entry)


@pytest.mark.parametrize(
    "changes",
    [{"node_keys": {"stranger": "bm9kZQ=="}}, {"certificates": {"stranger": A}}, {"revoked": ["stranger"]}],
)
def test_nothing_is_said_of_somebody_who_is_no_participant(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="stranger is not a participant"):
        registry(**changes)


def test_revoking_somebody_unknown_is_refused() -> None:
    with pytest.raises(RunFolderError, match="stranger"):
        registry().revoking("stranger")
