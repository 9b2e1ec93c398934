"""The rules of a federation: which sites to ask, which answers count, what happens next.

Enters: state, messages and a clock reading. Leaves: decisions, or refusals with reason codes.
Never: does IO of its own; reads a clock.

Every function depends on its arguments alone. Tests can therefore check each decision as a row of a table, and an
auditor can recompute it.
"""
