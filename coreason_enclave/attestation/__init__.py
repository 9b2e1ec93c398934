"""Evidence about the code that runs at a site, its binding to a job, and its appraisal.

Enters: evidence, binding, policy, endorsements and a time. Leaves: an attestation result or a refusal.
Never: takes a verdict from the prover. Evidence has no status field, so a prover cannot write "trusted".

Terms follow RATS (RFC 9334): an attester *produces* evidence, a verifier checks authenticity, an appraisal policy
decides about acceptance.

>>> from coreason_enclave.attestation import Appraiser, AttestationPolicy, Binding, Role
>>> from coreason_enclave.attestation.endorsements import NoEndorsements
>>> from coreason_enclave.hardware import SimulatedAttester
>>> from coreason_enclave.schemas import Profile
>>> binding = Binding(Role.SITE, "01" * 32, "02" * 32, "03" * 32, subject="ash", job_digest="04" * 32)
>>> evidence, policy = SimulatedAttester().produce(binding.context()), AttestationPolicy.simulated_only()
>>> Appraiser(policy, Profile.DEVELOPMENT, NoEndorsements()).appraise(evidence, binding, now=1_800_000_000).provenance
<Provenance.SIMULATED: 'simulated'>
>>> Appraiser(policy, Profile.PRODUCTION, NoEndorsements()).appraise(evidence, binding, now=1_800_000_000)
Traceback (most recent call last):
coreason_enclave.attestation.verify.verdict.VerificationRefused: simulated evidence proves nothing, ...
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
