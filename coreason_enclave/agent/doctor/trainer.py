"""Checks whether the site's own training loop can be loaded."""

from __future__ import annotations

from collections.abc import Iterator

from coreason_enclave.agent.doctor.findings import Diagnosis, DiagnosisLevel, Examined


def trainer(site: Examined) -> Iterator[Diagnosis]:
    """Check that the trainer named in ``site.toml``, if any, can be imported and created, not how well it trains."""
    name = site.config.trainer
    if name is None:
        return
    from coreason_enclave.sentry import DataSentry
    from coreason_enclave.site import load_trainer  # loads the frameworks

    load_trainer(name, site.config.site_id, DataSentry(site.folder / site.config.data_root))
    yield Diagnosis("trainer", DiagnosisLevel.OK, f"{name}, a training loop of this site")
