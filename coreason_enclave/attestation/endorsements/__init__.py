"""Endorsements: what vendors say about a platform, which a verifier needs besides the evidence itself.

Behind one port, so that a relying party decides where they come from: an offline bundle, a cache on disk, the vendor's
service. None of them is trusted: whatever a source gives is verified up to the vendor's pinned root.
"""

from __future__ import annotations

from coreason_enclave.attestation.endorsements.cache import CachedEndorsements
from coreason_enclave.attestation.endorsements.endorsement_settings import EndorsementSettings, opened
from coreason_enclave.attestation.endorsements.file_bundle import OfflineBundle
from coreason_enclave.attestation.endorsements.http import HttpPort, HttpReply, HttpsClient
from coreason_enclave.attestation.endorsements.sources import (
    EndorsementSource,
    FirstOf,
    ItemwiseSource,
    NoEndorsements,
)
from coreason_enclave.attestation.endorsements.vendor_services import Addresses, FetchedEndorsements

__all__ = [
    "Addresses",
    "CachedEndorsements",
    "EndorsementSettings",
    "EndorsementSource",
    "FetchedEndorsements",
    "FirstOf",
    "HttpPort",
    "HttpReply",
    "HttpsClient",
    "ItemwiseSource",
    "NoEndorsements",
    "OfflineBundle",
    "opened",
]
