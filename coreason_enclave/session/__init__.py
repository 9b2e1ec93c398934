"""One order at a site, in the only sequence that is allowed.

Enters: a sealed message of the coordinator. Leaves: a sealed update, or a refusal with a reason code.
Never: releases an update that was not charged to the ledger first; lets the text of a user's error out.
"""
