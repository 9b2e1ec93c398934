from .manifest import Manifest as Manifest
from .manifest import verify_manifest_under as verify_manifest_under
from .xml import parse_untrusted as parse_untrusted
