"""AMD's root keys (ARK), one per product line, pinned by the SHA-256 of their certificates.

Source: AMD publishes the certificates under ``https://kdsintf.amd.com/vcek/v1/<product>/cert_chain``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

from coreason_enclave.attestation.verify.snp.chain import Root
from coreason_enclave.attestation.verify.snp.products import SnpProduct
from coreason_enclave.crypto import sha256_hex
from coreason_enclave.errors import ConfigurationError

PINS: Mapping[SnpProduct, str] = {
    SnpProduct.MILAN: "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
    SnpProduct.GENOA: "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
    SnpProduct.TURIN: "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
}


def load_pinned_roots() -> dict[SnpProduct, Root]:
    """Return AMD's roots from this package; raises :class:`ConfigurationError` if a file does not match its pin."""
    return {product: Root.of(_pinned(product, digest)) for product, digest in PINS.items()}


def _pinned(product: SnpProduct, digest: str) -> bytes:
    der = (files(__package__) / "ark" / f"{product.value.lower()}.der").read_bytes()
    if sha256_hex(der) != digest:
        raise ConfigurationError(f"the installed copy of AMD's root for {product} is not the pinned root")
    return der
