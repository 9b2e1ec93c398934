"""The documents that cross the trust boundary (docs/WIRE.md).

Enters: bytes from another party.
Leaves: strictly typed documents, or an :class:`EnvelopeError`.
Never: trusts a field without a signature; changes a form without a new version.

>>> from coreason_enclave.crypto import canonical_json
>>> from coreason_enclave.wire import Enrolment
>>> enrolment = Enrolment(
...     site_id="ash", public_key="ab" * 32, profile="production", job_id="s-1", job_digest="cd" * 32, enrolled_at=1)
>>> Enrolment.from_payload(enrolment.canonical()) == enrolment
True
>>> Enrolment.from_payload(canonical_json({**enrolment.model_dump(mode="json"), "is_admin": True}))
Traceback (most recent call last):
coreason_enclave.errors.EnvelopeError: not an enrolment: is_admin is not a known field
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
