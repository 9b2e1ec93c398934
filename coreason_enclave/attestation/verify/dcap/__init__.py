"""Verify Intel SGX and TDX quotes (DCAP) offline, from an enclave's or a trust domain's report to Intel's root.

Enters: a quote, collateral, a platform policy and a time. Leaves: a verdict with its open checks, or a refusal.
Never: reads a clock or the network; trusts a root other than Intel's (:func:`verify_sgx`, :func:`verify_tdx`).

``dcap-qvl`` supplies the cryptography, under a policy that admits only the statuses allowed by this package. The
package adds:

- an exact parser of the quote;
- checks of the collateral's validity windows and revocation lists;
- the platform policy.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
