"""What a site can prove about the code that runs there: evidence, its binding to a job, and its appraisal.

Words follow RATS (RFC 9334): an attester *produces* evidence, a verifier checks that it is authentic, an appraisal
policy decides whether it is acceptable. Evidence has no status field: nothing that a prover writes can say
"trusted".
"""
