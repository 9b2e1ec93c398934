"""Cryptographic building blocks: canonical JSON, signatures, envelopes, logs, keystreams.

Enters: bytes and keys. Leaves: signatures, ciphertexts, digests, and a typed error for whatever does not verify.
Never: knows of jobs, rounds or sites; invents a primitive of its own.
"""
