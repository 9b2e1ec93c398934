from .pki import CertificateAuthority as CertificateAuthority
from .pki import certificate_fingerprint as certificate_fingerprint
from .pki import create_authority as create_authority
from .pki import participant_uri as participant_uri
