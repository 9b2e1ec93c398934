"""Fields that documents between a coordinator and one site have in common. The canonical form sorts all fields."""

from __future__ import annotations

from coreason_enclave.schemas import FormatVersion, HexDigest, Profile, SafeId, StrictModel, UnixSeconds


class SiteDocument(StrictModel):
    """A document to or from the site ``site_id``."""

    version: FormatVersion = 1
    site_id: SafeId


class SiteJobDocument(SiteDocument):
    """A document about one job, which the digest identifies."""

    job_id: SafeId
    job_digest: HexDigest


class SiteRequest(SiteDocument):
    """A coordinator's request to a site, to be answered between two moments (Unix seconds).

    ``profile`` is the coordinator's own: a site of another profile refuses.
    """

    profile: Profile
    issued_at: UnixSeconds
    expires_at: UnixSeconds
