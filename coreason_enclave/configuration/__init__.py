"""The only reader of configuration files: capped before parsing, with one error type.

Enters: the path or the bytes of a configuration file.
Leaves: text, plain values or a validated model, or a :class:`~coreason_enclave.errors.ConfigurationError`.
Never: reads a file without a size limit; lets TOML reach the parser unmeasured.

- A read stops at :data:`MAX_BYTES` plus one byte, enough to detect a larger file.
- One pass over TOML text (:mod:`.toml`) counts its nesting, the parts of its keys and the length of its numbers before
  a parser sees the text. A few kilobytes of hostile text would otherwise keep a parser busy for minutes or exhaust its
  stack.
- All errors name the file, and the line if known. The command line ends with exit code 2.

>>> from coreason_enclave.configuration import parse_toml
>>> parse_toml(b"version = 1\\nversion = 2", "site.toml")
Traceback (most recent call last):
coreason_enclave.errors.ConfigurationError: site.toml is not TOML: Cannot overwrite a value (at end of document)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
