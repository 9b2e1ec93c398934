"""A relying party's sources of endorsements, as written in TOML::

    [endorsements]
    bundle = "endorsements"         # a folder, filled beforehand
    fetch = true                    # ask the vendors' services
    cache = "state/endorsements"    # and store their answers
    max_age_s = 86400

Without any setting, no source exists. Verifiers then refuse evidence that does not bring all its endorsements.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import StringConstraints, model_validator

from coreason_enclave.attestation.endorsements.cache import DEFAULT_MAX_AGE_S, CachedEndorsements
from coreason_enclave.attestation.endorsements.file_bundle import OfflineBundle
from coreason_enclave.attestation.endorsements.http import HttpsClient
from coreason_enclave.attestation.endorsements.patience import PatientHttp
from coreason_enclave.attestation.endorsements.sources import (
    EndorsementSource,
    FirstOf,
    ItemwiseSource,
    NoEndorsements,
)
from coreason_enclave.attestation.endorsements.vendor_services import FetchedEndorsements
from coreason_enclave.errors import ConfigurationError
from coreason_enclave.schemas import Flag, StrictModel, in_range

_Folder = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^[^\x00]+$")]


class EndorsementSettings(StrictModel):
    """The sources in query order: bundle, cache, vendors.

    Attributes:
        bundle, cache: Folders, relative to the folder of the configuration file.
        max_age_s: Maximum age of fetched items in seconds; one minute to 30 days.
    """

    bundle: _Folder | None = None
    cache: _Folder | None = None
    fetch: Flag = False
    max_age_s: Annotated[int, *in_range(60, 30 * 86_400)] = DEFAULT_MAX_AGE_S

    @model_validator(mode="after")
    def _cache_needs_fetch(self) -> Self:
        if self.cache is not None and not self.fetch:
            raise ValueError("cache needs fetch = true; to use endorsements fetched before, set bundle to their folder")
        return self


def opened(settings: EndorsementSettings, base_folder: Path) -> EndorsementSource:
    """Return the sources that ``settings`` name; raises :class:`ConfigurationError` if the bundle folder is missing."""
    sources: list[ItemwiseSource] = []
    if settings.bundle is not None:
        folder = base_folder / settings.bundle
        if not folder.is_dir():
            raise ConfigurationError(f"endorsements: folder {folder} (bundle) does not exist")
        sources.append(OfflineBundle(folder))
    if settings.fetch:
        fetched: ItemwiseSource = FetchedEndorsements(PatientHttp(HttpsClient()))
        if settings.cache is not None:
            fetched = CachedEndorsements(fetched, base_folder / settings.cache, max_age_s=settings.max_age_s)
        sources.append(fetched)
    return FirstOf(sources) if sources else NoEndorsements()
