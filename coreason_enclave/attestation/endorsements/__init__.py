"""Endorsements: vendors' statements about a platform, required for verification in addition to the evidence.

Enters: a report and a time. Leaves: endorsements from an offline bundle, a disk cache or the vendor's service.
Never: trusts a source. The verifier checks every endorsement up to the vendor's pinned root.

All sources share one interface, so each relying party decides where its endorsements come from.
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
