"""The documents that cross the trust boundary (docs/WIRE.md).

Enters: bytes from another party. Leaves: strictly typed documents, or an :class:`EnvelopeError`.
Never: trusts a field that no signature covers; changes a form without a new version.
"""
