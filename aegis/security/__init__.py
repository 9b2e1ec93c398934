"""Certificates and the audit log.

Enters: certificate requests, and actions to record.
Leaves: certificates, and hash-chained log lines.
Never: decides who takes part in a federation; the registry does.
"""
