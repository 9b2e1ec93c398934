"""The rules of a federation, without IO: who is asked, whose answer counts, what happens next.

Everything here is a function of its arguments, a clock reading among them, so that every decision can be tested as a
row of a table and recomputed by an auditor.
"""
