"""From a written ``site.toml`` to a site that may connect; everything is checked before anything is written."""

from __future__ import annotations

import ssl
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography import x509

from coreason_enclave.crypto.signing import Signer
from coreason_enclave.errors import ConfigurationError, EnclaveError, Reason
from coreason_enclave.main import main
from coreason_enclave.site.connection import load_connection
from coreason_enclave.site.registration_grant import accept_grant
from coreason_enclave.site.registration_request import make_request
from coreason_enclave.wire.registration import fingerprint, open_request
from tests.support.gatekeeping import Coordinator

DAY_S = 86_400


@pytest.fixture
def coordinator(tmp_path: Path) -> Coordinator:
    return Coordinator(tmp_path / "pki")


@pytest.fixture
def site(federation: Any) -> Path:
    """A founded site that has joined nobody."""
    folder: Path = federation.create().folder
    return folder


def enclave(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def join(site: Path, grant: bytes, key: str, now: float | None = None) -> Any:
    return accept_grant(site, grant, key, now=time.time() if now is None else now)


def connected_files(site: Path) -> list[str]:
    return sorted(str(path.relative_to(site)) for path in [*site.glob("connection*"), *site.glob("connection/*")])


def test_a_request_names_the_sites_three_keys_and_makes_them_once(site: Path) -> None:
    first, again = open_request(make_request(site)), open_request(make_request(site))

    assert (first.public_key, first.node_key) == (again.public_key, again.node_key)
    keys = [x509.load_pem_x509_csr(request.tls_request.encode()) for request in (first, again)]
    assert keys[0].public_key() == keys[1].public_key()
    assert all(key.is_signature_valid for key in keys)
    assert {path.name for path in (site / "keys").iterdir() if path.is_file()} >= {"node.key", "tls.key", "signing.key"}
    for name in ("node.key", "tls.key", "signing.key"):
        assert stat.S_IMODE((site / "keys" / name).stat().st_mode) == 0o600


def test_a_request_holds_no_private_key(site: Path) -> None:
    envelope = make_request(site)

    for name in ("node.key", "tls.key"):
        secret = (site / "keys" / name).read_text().splitlines()[1]
        assert secret.encode() not in envelope
    assert (site / "keys" / "signing.key").read_bytes().hex().encode() not in envelope


def test_a_site_joins_and_its_connection_can_be_used(site: Path, coordinator: Coordinator) -> None:
    grant = join(site, coordinator.grant(make_request(site), gateway="localhost:9443"), coordinator.signer.public_hex)

    assert grant.site_id == "clinic-1"
    connection = load_connection(site)
    assert (connection.host, connection.port, connection.server_name) == ("localhost", 9443, "localhost")
    assert connection.coordinator_key == coordinator.signer.public_hex
    context = connection.tls()
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert len(context.get_ca_certs()) == 1


def test_joining_again_renews_the_certificate(site: Path, coordinator: Coordinator) -> None:
    key = coordinator.signer.public_hex
    join(site, coordinator.grant(make_request(site)), key)
    before = load_connection(site).client_certificate()

    join(site, coordinator.grant(make_request(site), gateway="127.0.0.1:99"), key)

    assert load_connection(site).client_certificate().serial_number != before.serial_number
    assert load_connection(site).port == 99


STRANGER = Signer.from_seed(bytes([9]) * 32)


@dataclass(frozen=True)
class Wrong:
    """A grant that must be refused: what is changed in it, and the reason."""

    changes: Callable[[Path, Coordinator], dict[str, Any]]
    reason: Reason = Reason.MALFORMED


def another_sites(site: Path, coordinator: Coordinator) -> dict[str, Any]:
    other = open_request(make_request(site)).tls_request.encode()
    return {"client_certificate": coordinator.authority.issue_client("clinic-2", other).decode()}


def for_another_key(site: Path, coordinator: Coordinator) -> dict[str, Any]:
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    pem = request.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    issued = coordinator.authority.issue_client("clinic-1", pem.public_bytes(serialization.Encoding.PEM))
    return {"client_certificate": issued.decode()}


def from_another_authority(site: Path, coordinator: Coordinator) -> dict[str, Any]:
    other = Coordinator(coordinator.folder.with_name("other-pki")).authority
    return {"ca_certificate": other.certificate.decode()}


def no_authority(site: Path, coordinator: Coordinator) -> dict[str, Any]:
    return {"ca_certificate": (coordinator.authority.folder / "gateway.crt").read_text()}


WRONG = {
    "signed by a stranger": Wrong(lambda *_: {"signer": STRANGER}, Reason.UNKNOWN_SIGNER),
    "for another site": Wrong(
        lambda *_: {"site_id": "clinic-2", "participants": {"clinic-2": STRANGER.public_hex}},
        Reason.NOT_ADDRESSED_TO_ME,
    ),
    "for another founding of this site": Wrong(
        lambda *_: {"public_key": STRANGER.public_hex}, Reason.NOT_ADDRESSED_TO_ME
    ),
    "this site is not among the participants": Wrong(lambda *_: {"participants": {}}),
    "this site is among them with another key": Wrong(lambda *_: {"participants": {"clinic-1": STRANGER.public_hex}}),
    "the certificate names another site": Wrong(another_sites),
    "the certificate is for another key": Wrong(for_another_key),
    "the certificate is of another authority": Wrong(from_another_authority),
    "the authority is none": Wrong(no_authority),
    "the authority's certificate is damaged": Wrong(lambda *_: {"ca_certificate": "no PEM"}),
    "the client's certificate is damaged": Wrong(lambda *_: {"client_certificate": "no PEM"}),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_wrong_welcome_is_refused_and_leaves_nothing(site: Path, coordinator: Coordinator, wrong: Wrong) -> None:
    request = make_request(site)
    grant = coordinator.grant(request, **wrong.changes(site, coordinator))

    with pytest.raises(EnclaveError) as refused:
        join(site, grant, coordinator.signer.public_hex)

    assert refused.value.reason is wrong.reason
    assert connected_files(site) == []


@pytest.mark.parametrize("days", [-2, 400, 4000])
def test_a_certificate_that_is_not_valid_now_is_refused(site: Path, coordinator: Coordinator, days: int) -> None:
    grant = coordinator.grant(make_request(site))

    with pytest.raises(EnclaveError) as refused:
        join(site, grant, coordinator.signer.public_hex, now=time.time() + days * DAY_S)

    assert refused.value.reason is Reason.EXPIRED
    assert connected_files(site) == []


def test_a_wrong_welcome_does_not_disturb_a_site_that_has_joined(site: Path, coordinator: Coordinator) -> None:
    key = coordinator.signer.public_hex
    join(site, coordinator.grant(make_request(site)), key)
    before = {path: path.read_bytes() for path in [site / "connection.toml", *(site / "connection").iterdir()]}

    with pytest.raises(EnclaveError):
        join(site, coordinator.grant(make_request(site), **from_another_authority(site, coordinator)), key)

    assert {path: path.read_bytes() for path in before} == before


def test_a_site_leaves_one_coordinator_before_it_joins_another(site: Path, coordinator: Coordinator) -> None:
    join(site, coordinator.grant(make_request(site)), coordinator.signer.public_hex)
    other = Coordinator(coordinator.folder.with_name("other-pki"), STRANGER)

    with pytest.raises(ConfigurationError, match="another coordinator"):
        join(site, other.grant(make_request(site)), STRANGER.public_hex)

    (site / "connection.toml").unlink()
    join(site, other.grant(make_request(site)), STRANGER.public_hex)


def test_a_site_without_keys_has_asked_nobody(site: Path, coordinator: Coordinator) -> None:
    grant = coordinator.grant(make_request(site))
    for name in ("tls.key", "signing.key"):
        (site / "keys" / name).rename(site / name)
        with pytest.raises(ConfigurationError):
            join(site, grant, coordinator.signer.public_hex)
        (site / name).rename(site / "keys" / name)
    assert connected_files(site) == []


@pytest.mark.parametrize(
    "text", ["", "=", "version = 2", 'version = 1\ngateway = "x"', "version = 1\nca = '../../etc/passwd'"]
)
def test_a_damaged_connection_file_is_refused(site: Path, text: str) -> None:
    (site / "connection.toml").write_text(text)

    with pytest.raises(ConfigurationError, match=r"connection\.toml"):
        load_connection(site)


def test_found_request_and_join_on_the_command_line(federation: Any, coordinator: Coordinator, tmp_path: Path) -> None:
    founded = federation.create()
    site = tmp_path / "written"
    site.mkdir()
    (site / "site.toml").write_bytes((founded.folder / "site.toml").read_bytes())  # as a person would write it

    first = enclave("init", "--config", site / "site.toml")
    again = enclave("init", "--config", site)
    assert (first.exit_code, again.exit_code) == (0, 0), first.output + again.output
    assert first.output == again.output
    assert (site / "ledger.sqlite").exists()

    asked = enclave("request", site, "--out", tmp_path / "request.json")
    assert asked.exit_code == 0, asked.output
    request = (tmp_path / "request.json").read_bytes()
    own = open_request(request).public_key
    assert own in first.output
    assert fingerprint(own) in asked.output

    other = Signer.from_seed(bytes([5]) * 32).public_hex
    grant = coordinator.grant(request, participants={"clinic-1": own, "clinic-99": other})
    (tmp_path / "grant.json").write_bytes(grant)
    joined = enclave("join", site, tmp_path / "grant.json", "--coordinator-key", coordinator.signer.public_hex)
    assert joined.exit_code == 0, joined.output
    assert fingerprint(coordinator.signer.public_hex) in joined.output
    assert f'clinic-99 = "{other}"' in joined.output
    assert "coordinator_keys" not in joined.output  # it is listed already
    assert load_connection(site).server_name == "localhost"


def test_joining_says_when_the_coordinators_orders_would_be_refused(
    site: Path, coordinator: Coordinator, tmp_path: Path
) -> None:
    other = Coordinator(coordinator.folder, STRANGER)
    (tmp_path / "grant.json").write_bytes(other.grant(make_request(site)))

    joined = enclave("join", site, tmp_path / "grant.json", "--coordinator-key", STRANGER.public_hex)

    assert joined.exit_code == 0, joined.output
    assert f'coordinator_keys = ["{STRANGER.public_hex}"]' in joined.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("init", "--config", "nowhere"), "no site.toml"),
        (("request", "nowhere"), "no site.toml"),
        (("join", "{site}", "nowhere.json", "--coordinator-key", "00" * 32), "nowhere.json"),
        (("join", "{site}", "{site}/site.toml", "--coordinator-key", "zz"), "not an Ed25519 public key"),
        (("join", "{site}", "{site}/site.toml", "--coordinator-key", STRANGER.public_hex), "not a valid JSON"),
        (("request", "{site}", "--out", "/no/such/folder/request.json"), "/no/such/folder"),
    ],
)
def test_a_command_that_cannot_be_done_says_so_in_one_line(site: Path, arguments: tuple[str, ...], says: str) -> None:
    result = enclave(*(argument.format(site=site) for argument in arguments))

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    assert says in result.stderr


@pytest.mark.parametrize("command", ["agent", "doctor", "init", "join", "request", "status"])
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = enclave(command, "--help")

    assert result.exit_code == 0
    assert f"Example: coreason-enclave {command}" in result.stdout
