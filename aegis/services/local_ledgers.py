"""Read access of a coordinator to the sites on its own host: their configuration and ledgers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from aegis.federation import FederationFolder
from coreason_enclave.ledger import PrivacyLedger, SqliteLedger
from coreason_enclave.policy import SiteConfig, load_site_config


@dataclass(frozen=True)
class LocalSiteLedger:
    """A registered site on this host; other processes answer its requests."""

    config: SiteConfig
    ledger: PrivacyLedger


@contextmanager
def reading_local_sites(
    federation: FederationFolder, sites: Collection[str] | None = None
) -> Iterator[Mapping[str, LocalSiteLedger]]:
    """Keep the ledgers of the sites on this host open while the body runs, by site id.

    Args:
        sites: the sites to look for; None: all registered ones.

    Raises:
        EnclaveError: a site's configuration or ledger cannot be read.
    """
    wanted = federation.config().public_keys if sites is None else sites
    with ExitStack() as opened:
        found = {}
        for folder in federation.site_folders():
            if folder.name in wanted:
                config = load_site_config(folder / "site.toml")
                ledger = SqliteLedger(folder / config.ledger, must_exist=True)
                opened.callback(ledger.close)
                found[folder.name] = LocalSiteLedger(config, ledger)
        yield found
