"""The one reader of configuration files: capped before it parses, and one error for whatever is wrong.

- At most :data:`MAX_BYTES` of a file are read, and no more of a larger one than shows that it is larger.
- Before a parser sees the text, its nesting, the parts of its keys and the length of its numbers are counted, in one
  pass (:mod:`.toml`): a parser would run for minutes, or into the end of its stack, on a few kilobytes made for that.
- Whatever is wrong is a :class:`~coreason_enclave.errors.ConfigurationError` that names the file, and the line where
  it is known. The command line ends with exit code 2.

>>> parse_toml(b"version = 1\\nversion = 2", "site.toml")
Traceback (most recent call last):
coreason_enclave.errors.ConfigurationError: site.toml is not TOML: Cannot overwrite a value (at end of document)
"""

from coreason_enclave.configuration.files import MAX_BYTES, missing, read_text
from coreason_enclave.configuration.toml import parse_toml, read_toml, read_toml_as

__all__ = ["MAX_BYTES", "missing", "parse_toml", "read_text", "read_toml", "read_toml_as"]
