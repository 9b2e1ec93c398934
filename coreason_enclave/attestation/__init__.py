"""Evidence about the code that runs at a site, its binding to a job, and its appraisal.

Enters: evidence, binding, policy, endorsements and a time. Leaves: an attestation result or a refusal.
Never: takes a verdict from the prover. Evidence has no status field, so a prover cannot write "trusted".

Terms follow RATS (RFC 9334): an attester *produces* evidence, a verifier checks authenticity, an appraisal policy
decides about acceptance.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
