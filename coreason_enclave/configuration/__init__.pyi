from .files import MAX_BYTES as MAX_BYTES
from .files import missing as missing
from .files import read_text as read_text
from .toml import parse_toml as parse_toml
from .toml import read_toml as read_toml
from .toml import read_toml_as as read_toml_as
from .yaml import read_yaml as read_yaml
