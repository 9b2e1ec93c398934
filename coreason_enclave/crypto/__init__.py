"""Cryptographic building blocks: canonical JSON, signatures, envelopes, logs, keystreams.

Enters: bytes and keys.
Leaves: signatures, ciphertexts and digests, or a typed error for input that fails verification.
Never: knows of jobs, rounds or sites; invents its own primitive.
"""
