"""Maps a verified client certificate to a participant, again for every request."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from cryptography import x509

from aegis.errors import RequestRefused, RunFolderError
from aegis.federation import FederationConfig, FederationFolder
from aegis.security import participant_uri
from coreason_enclave.crypto import load_certificate, sha256_hex
from coreason_enclave.errors import Reason
from coreason_enclave.system import unix_seconds


@dataclass(frozen=True)
class PinnedPeer:
    """An authenticated participant, with the keys that the registry binds to its site id.

    Attributes:
        public_key: Ed25519 (hex).
        node_key: as spelled in Flower's header; None if the registry lists no node key.
    """

    site_id: str
    public_key: str
    node_key: str | None


class Registry:
    """A federation's participants; reloads ``federation.toml`` after every change.

    Args:
        clock: Unix seconds, for the certificates' dates.
    """

    def __init__(self, federation: FederationFolder, *, clock: Callable[[], float] = time.time) -> None:
        self._federation = federation
        self._clock = clock
        self._stamp: tuple[int, int, int] | None = None
        self._config: FederationConfig | None = None
        self._by_certificate: Mapping[str, str] = {}

    def identify(self, certificate: bytes | None) -> PinnedPeer:
        """Return the participant that a certificate (DER) belongs to.

        Raises:
            RequestRefused: the registry cannot be read, or the certificate is missing, pinned for no participant,
                revoked, expired, or in another participant's name.
        """
        config = self._current()
        site_id = self._by_certificate.get(sha256_hex(certificate)) if certificate is not None else None
        if certificate is None or site_id is None:
            raise RequestRefused(Reason.UNKNOWN_SITE, "a certificate that is pinned for no participant")
        if site_id in config.revoked:
            raise RequestRefused(Reason.REVOKED, f"{site_id} is revoked")
        uris, last_second = _contents(certificate)
        if uris != (participant_uri(site_id),):
            raise RequestRefused(Reason.UNKNOWN_SITE, f"the certificate pinned for {site_id} is in another name")
        if self._clock() > last_second:
            raise RequestRefused(Reason.EXPIRED, f"the certificate of {site_id} has expired")
        return PinnedPeer(site_id, config.public_keys[site_id], config.node_keys.get(site_id))

    def node_keys(self) -> Mapping[str, str]:
        """Return all participants' node keys by site id, revoked sites included; raises :class:`RequestRefused`."""
        return self._current().node_keys

    def site_ids(self) -> tuple[str, ...]:
        """Return the site ids of all participants, revoked sites included; raises :class:`RequestRefused`."""
        return tuple(sorted(self._current().public_keys))

    def _current(self) -> FederationConfig:
        try:
            status = self._federation.registry.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if self._config is None or stamp != self._stamp:
                self._config = None  # fail closed: never fall back to the previous registry
                self._config, self._stamp = self._federation.config(), stamp
                self._by_certificate = {pin: site for site, pin in self._config.certificates.items()}
        except (OSError, RunFolderError) as error:
            raise RequestRefused(Reason.CONFIGURATION, f"the registry cannot be read: {error}") from error
        return self._config


@lru_cache(maxsize=1024)
def _contents(certificate: bytes) -> tuple[tuple[str, ...], float]:
    """Return the certificate's URIs and the last Unix second of its validity."""
    parsed = load_certificate(certificate)
    try:
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (), 0.0
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return tuple(uris), float(unix_seconds(parsed.not_valid_after_utc))
