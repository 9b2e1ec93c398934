"""The documents that cross the trust boundary (docs/WIRE.md).

Enters: bytes from another party.
Leaves: strictly typed documents, or an :class:`EnvelopeError`.
Never: trusts a field without a signature; changes a form without a new version.
"""
