"""The site on NVIDIA FLARE: the parts behind :class:`~coreason_enclave.federation.executor.CoreasonExecutor`.

Enters: FLARE tasks with sealed bytes. Leaves: sealed replies, or return codes with a reason.
Never: takes a path or a host setting from a job.

On the site's side only this folder and the executor's file import FLARE.
"""
