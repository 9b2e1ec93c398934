"""Verify Intel SGX and TDX quotes (DCAP) offline, from an enclave's or a trust domain's report to Intel's root.

Enters: a quote, collateral, a platform policy and a time. Leaves: a verdict with its open checks, or a refusal.
Never: reads a clock or the network; trusts a root other than Intel's (:func:`verify_sgx`, :func:`verify_tdx`).

``dcap-qvl`` supplies the cryptography, under a policy that admits only the statuses allowed by this package. The
package adds:

- an exact parser of the quote;
- checks of the collateral's validity windows and revocation lists;
- the platform policy.

>>> from coreason_enclave.attestation.verify import VerificationRefused
>>> from coreason_enclave.attestation.verify.dcap import DcapEndorsements, DcapPlatformPolicy, verify_tdx
>>> policy = DcapPlatformPolicy(accepted_advisories=("INTEL-SA-00615",))
>>> try:
...     verify_tdx(bytes(100), DcapEndorsements(), policy, now=1_800_000_000, report_data=bytes(64))
... except VerificationRefused as error:
...     print(f"{error.refusal}: {error}")
malformed: not an exact quote: version 0 of TEE type 0x0 is neither an SGX nor a TDX quote known here
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
