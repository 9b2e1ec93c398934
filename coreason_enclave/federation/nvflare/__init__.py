"""The site on NVIDIA FLARE: what stands behind :class:`~coreason_enclave.federation.executor.CoreasonExecutor`.

Nothing of FLARE's is imported at the site outside this folder and that file.
"""
