"""Compare a GPU's measurements with the manifests of its driver and of its VBIOS.

No field states that confidential computing is on and DEVTOOLS off. A GPU in another mode measures differently, so only
a match with both manifests proves the mode.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from coreason_enclave.attestation.verify.nvidia.spdm import MeasurementReport
from coreason_enclave.attestation.verify.verdict import Refusal, VerificationRefused

if TYPE_CHECKING:  # reading manifests needs lxml and signxml; a bare report does not
    from coreason_enclave.attestation.verify.rim import Manifest

DRIVER = "driver"
VBIOS = "vbios"

_DECODER = 35
"""Number of NVDEC0's measurement. NVIDIA's verifiers skip it if the report says that the decoder is fused off."""


def assign(manifests: Iterable[Manifest], report: MeasurementReport, product: str) -> dict[str, Manifest]:
    """Assign the manifests to driver and VBIOS; raises :class:`VerificationRefused` for another GPU's manifest."""
    purposes = {report.opaque.driver_version: DRIVER, report.opaque.vbios_version: VBIOS}
    assigned: dict[str, Manifest] = {}
    for manifest in manifests:
        kind = purposes.get(manifest.version) or purposes.get(manifest.version.upper())
        if kind is None or kind in assigned or manifest.product != product:
            message = (
                f"the manifest of {manifest.product} {manifest.version} does not belong to this {product} "
                f"({', '.join(purposes)}), or occurs twice"
            )
            raise VerificationRefused(Refusal.ENDORSEMENTS_MISMATCH, message)
        assigned[kind] = manifest
    return assigned


def compare(report: MeasurementReport, manifests: Mapping[str, Manifest]) -> tuple[int, ...]:
    """Compare every measurement that the manifests list.

    Returns:
        Numbers of the measurements compared, all of them correct.

    Raises:
        VerificationRefused: ``measurement``: some differ; ``endorsements_mismatch``: both manifests list one number.
    """
    expected: dict[int, frozenset[bytes]] = {}
    for manifest in manifests.values():
        if not expected.keys().isdisjoint(manifest.measurements):
            raise VerificationRefused(Refusal.ENDORSEMENTS_MISMATCH, "two manifests describe the same measurement")
        expected.update(manifest.measurements)
    if report.opaque.decoder_is_off:
        expected.pop(_DECODER, None)
    different = [number for number, values in sorted(expected.items()) if report.measurements[number] not in values]
    if different:
        message = f"measurements {different} differ from {', '.join(manifests)} in confidential-computing mode"
        raise VerificationRefused(Refusal.MEASUREMENT, message)
    return tuple(sorted(expected))
