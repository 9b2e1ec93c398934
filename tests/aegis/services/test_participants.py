"""Founding, admitting and revoking, with the site's own end of joining."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aegis.errors import RunFolderError
from aegis.federation.registry import FederationFolder
from aegis.gateway.config import GatewayFiles
from aegis.services.participants import admit, create_federation, prepare_network, revoke
from coreason_enclave.errors import EnvelopeError
from coreason_enclave.policy import Profile
from coreason_enclave.site.connection import load_connection
from coreason_enclave.site.registration_grant import accept_grant
from coreason_enclave.site.registration_request import make_request
from coreason_enclave.site.tls_keys import load_node_key, node_key_text
from coreason_enclave.wire.registration import open_grant


@pytest.fixture
def empty(tmp_path: Path) -> FederationFolder:
    """A created federation in which nobody takes part."""
    federation = FederationFolder(tmp_path / "federation")
    create_federation(federation, profile=Profile.DEVELOPMENT, delta=1e-5)
    return federation


@pytest.fixture
def clinic(federation: Any) -> Any:
    """A founded site that has joined nothing."""
    return federation.create("clinic-1")


def test_a_founded_federation_has_keys_that_only_its_owner_reads_and_listens_on_loopback(
    empty: FederationFolder,
) -> None:
    gateway = GatewayFiles(empty.coordinator).config()

    assert gateway.host == "127.0.0.1"
    assert gateway.public_address == f"127.0.0.1:{gateway.port}"
    assert gateway.superlink_port != gateway.port
    for key in ("signing.key", "pki/ca.key", "pki/gateway.key", "pki/superlink.key"):
        assert (empty.coordinator / key).stat().st_mode & 0o777 == 0o600
    assert empty.config().public_keys == {}


def test_a_federation_is_founded_once(empty: FederationFolder) -> None:
    key = empty.signer().public_hex
    with pytest.raises(RunFolderError, match="already holds a federation"):
        create_federation(empty, profile=Profile.PRODUCTION, delta=1e-5)

    assert empty.config().profile is Profile.DEVELOPMENT
    assert empty.signer().public_hex == key


def test_an_address_that_sites_cannot_use_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="give --public-address, by which sites reach it"):
        create_federation(FederationFolder(tmp_path), profile=Profile.PRODUCTION, delta=1e-5, host="0.0.0.0")

    assert not FederationFolder(tmp_path).exists


def test_a_public_address_decides_port_and_certificate(tmp_path: Path) -> None:
    federation = FederationFolder(tmp_path)
    gateway = create_federation(
        federation, profile=Profile.PRODUCTION, delta=1e-5, host="0.0.0.0", public_address="fl.example.org:9443"
    )

    assert (gateway.host, gateway.port, gateway.public_address) == ("0.0.0.0", 9443, "fl.example.org:9443")


def test_preparing_the_network_again_changes_nothing(empty: FederationFolder) -> None:
    before = {path: path.read_bytes() for path in empty.coordinator.rglob("*") if path.is_file()}
    prepare_network(empty)

    assert {path: path.read_bytes() for path in empty.coordinator.rglob("*") if path.is_file()} == before


def test_a_site_requests_is_admitted_and_joins(empty: FederationFolder, clinic: Any) -> None:
    asked, grant = admit(empty, make_request(clinic.folder))
    accept_grant(clinic.folder, grant, empty.signer().public_hex, now=time.time())
    config, connection = empty.config(), load_connection(clinic.folder)

    assert asked.site_id == "clinic-1"
    assert config.public_keys == {"clinic-1": clinic.public_key}
    assert config.node_keys == {"clinic-1": node_key_text(load_node_key(clinic.folder / "keys"))}
    assert config.certificates.keys() == {"clinic-1"}
    assert connection.port == GatewayFiles(empty.coordinator).config().port


def test_asking_again_renews_the_certificate_and_keeps_the_keys(empty: FederationFolder, clinic: Any) -> None:
    admit(empty, make_request(clinic.folder))
    first = empty.config()
    admit(empty, make_request(clinic.folder))
    second = empty.config()

    assert first.certificates != second.certificates
    assert (first.public_keys, first.node_keys) == (second.public_keys, second.node_keys)


def test_a_welcome_names_everybody_who_is_not_revoked(empty: FederationFolder, federation: Any) -> None:
    sites = [federation.create(f"clinic-{number}", rows=number) for number in (1, 2, 3)]
    for site in sites[:2]:
        admit(empty, make_request(site.folder))
    revoke(empty, "clinic-2")
    _, grant = admit(empty, make_request(sites[2].folder))
    opened = open_grant(grant, empty.signer().public_hex)

    assert opened.participants == {"clinic-1": sites[0].public_key, "clinic-3": sites[2].public_key}


def test_another_key_under_a_known_name_is_refused(
    empty: FederationFolder, clinic: Any, federation_at: Callable[[Path], Any], tmp_path: Path
) -> None:
    admit(empty, make_request(clinic.folder))
    before = empty.registry.read_bytes()
    impostor = federation_at(tmp_path / "elsewhere").create("clinic-2")
    config = (impostor.folder / "site.toml").read_text().replace('"clinic-2"', '"clinic-1"', 1)
    (impostor.folder / "site.toml").write_text(config)
    with pytest.raises(RunFolderError, match="has another key"):
        admit(empty, make_request(impostor.folder))

    assert empty.registry.read_bytes() == before


def test_a_revoked_site_cannot_ask_its_way_back(empty: FederationFolder, clinic: Any) -> None:
    admit(empty, make_request(clinic.folder))
    revoke(empty, "clinic-1")
    before = empty.registry.read_bytes()
    with pytest.raises(RunFolderError, match="revoked"):
        admit(empty, make_request(clinic.folder))

    assert empty.registry.read_bytes() == before


def test_whoever_does_not_take_part_cannot_be_revoked(empty: FederationFolder) -> None:
    with pytest.raises(RunFolderError, match="clinic-9"):
        revoke(empty, "clinic-9")


@pytest.mark.parametrize("change", [b"", b"{}", b"not json", None], ids=["empty", "no envelope", "no json", "a byte"])
def test_a_request_that_is_not_one_changes_nothing(empty: FederationFolder, clinic: Any, change: bytes | None) -> None:
    request = make_request(clinic.folder)
    if change is None:
        place = request.index(b'"payload":"') + 20
        change = request[:place] + (b"A" if request[place : place + 1] != b"A" else b"B") + request[place + 1 :]
    before = empty.registry.read_bytes()
    with pytest.raises(EnvelopeError):
        admit(empty, change)

    assert empty.registry.read_bytes() == before
