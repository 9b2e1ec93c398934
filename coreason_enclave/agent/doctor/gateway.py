"""Checks the way to the gateway: registration, certificates, TCP, TLS, acceptance by the gateway, and the clocks."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

from coreason_enclave.agent.doctor.findings import Diagnosis, DiagnosisLevel, Examined
from coreason_enclave.agent.health import HEALTH_PATH, HealthSender
from coreason_enclave.crypto import Signer, load_or_create_secret, seal
from coreason_enclave.site import Connection, load_connection
from coreason_enclave.system import CLOCK_SKEW_S, DAY_S, unix_seconds
from coreason_enclave.wire import HEALTH_TYPE

_TIMEOUT_S = 10.0
_SKEW_WARN_S = 5
_DAYS_WARN = 21


def gateway(site: Examined) -> Iterator[Diagnosis]:
    """Check from the local files to a gateway's answer; stop at a failure that makes later checks meaningless."""
    if site.socket_only:
        yield Diagnosis("gateway", DiagnosisLevel.OK, "none: the agent answers on its socket alone")
        return
    connection = load_connection(site.folder)
    yield _coordinator(site, connection)
    yield _validity(connection, site.now())
    connection.tls()
    try:
        socket.create_connection((connection.host, connection.port), _TIMEOUT_S).close()
    except OSError as error:
        found = f"{connection.host}:{connection.port} is not reached: {error.strerror or error}"
        yield Diagnosis("gateway", DiagnosisLevel.FAIL, found, "check address, DNS and firewall: one outbound port")
        return
    yield from _asked(site, connection)


def _asked(site: Examined, connection: Connection) -> Iterator[Diagnosis]:
    """Send a health statement as the agent does; the gateway's answer equals the answer to the agent."""
    path = site.folder / site.config.keys / "signing.key"
    if not path.exists():
        return  # the check of the keys reports the missing key
    session = connection.http(timeout_s=_TIMEOUT_S)
    try:
        session.request("POST", HEALTH_PATH, _sign_of_life(site, connection, path))
        response = session.getresponse()
        body = response.read(1 << 16)
    except ssl.SSLCertVerificationError as error:
        found = f"what answers at {connection.host}:{connection.port} is not this federation's gateway"
        yield Diagnosis("gateway", DiagnosisLevel.FAIL, f"{found}: {error.verify_message}", "fix address or join again")
        return
    except (OSError, http.client.HTTPException) as error:
        found = f"no TLS session with the gateway: {type(error).__name__} {error}".rstrip()
        yield Diagnosis("gateway", DiagnosisLevel.FAIL, found, "ask the coordinator: is the site certificate admitted?")
        return
    finally:
        session.close()
    yield _verdict_on(response.status, body)
    yield _clock(response.getheader("Date"), site.now())


def _sign_of_life(site: Examined, connection: Connection, key: Path) -> bytes:
    signer = Signer.from_seed(load_or_create_secret(key))
    sender = HealthSender(
        connection=connection,
        signer=signer,
        site_id=site.config.site_id,
        budgets=tuple,
        busy=lambda: False,
        stop=threading.Event(),
        wall=site.now,
    )
    return seal(HEALTH_TYPE, sender.statement().canonical(), signer)


def _verdict_on(status: int, body: bytes) -> Diagnosis:
    if status // 100 == 2:
        return Diagnosis("gateway", DiagnosisLevel.OK, "reached over TLS 1.3; site certificate and signature accepted")
    to_do = "ask the coordinator: is this site admitted, its certificate current, its clock right?"
    return Diagnosis("gateway", DiagnosisLevel.FAIL, f"the gateway refuses: {status} {_reason(body)}".rstrip(), to_do)


def _reason(body: bytes) -> str:
    try:
        reason = json.loads(body).get("reason", "")
    except (ValueError, AttributeError):
        return ""
    return reason[:80] if isinstance(reason, str) and reason.isprintable() else ""


def _clock(date: str | None, now: float) -> Diagnosis:
    """Compare with the gateway's clock, to its whole second."""
    try:
        theirs = parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return Diagnosis("clock", DiagnosisLevel.WARN, "the gateway did not state its time", "check it by other means")
    skew = now - theirs
    if abs(skew) <= _SKEW_WARN_S:
        return Diagnosis("clock", DiagnosisLevel.OK, f"within {_SKEW_WARN_S} s of the gateway's")
    verdict = DiagnosisLevel.FAIL if abs(skew) > CLOCK_SKEW_S else DiagnosisLevel.WARN
    found = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the gateway's"
    return Diagnosis("clock", verdict, found, "synchronise it (NTP): orders carry times, and are refused outside them")


def _coordinator(site: Examined, connection: Connection) -> Diagnosis:
    if connection.coordinator_key in site.config.policy.coordinator_keys:
        return Diagnosis("coordinator", DiagnosisLevel.OK, "the one that was joined is listed in site.toml")
    to_do = f'list it, if you checked it: coordinator_keys = ["{connection.coordinator_key}"]'
    return Diagnosis("coordinator", DiagnosisLevel.WARN, "site.toml does not list the one joined: it is refused", to_do)


def _validity(connection: Connection, now: float) -> Diagnosis:
    certificate = connection.client_certificate()
    left_s = unix_seconds(certificate.not_valid_after_utc) - now
    left = int(left_s // DAY_S)
    found = f"valid until {certificate.not_valid_after_utc:%Y-%m-%d}, {left} days"
    if left_s < 0:
        return Diagnosis(
            "certificate", DiagnosisLevel.FAIL, f"expired on {certificate.not_valid_after_utc:%Y-%m-%d}", _RENEW
        )
    return Diagnosis(
        "certificate", *((DiagnosisLevel.WARN, found, _RENEW) if left < _DAYS_WARN else (DiagnosisLevel.OK, found))
    )


_RENEW = "renew it: coreason-enclave request, have it admitted, join"
