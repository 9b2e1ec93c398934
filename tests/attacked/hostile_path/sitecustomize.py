"""Makes the FLARE client process that has this folder on its path a hostile one: see ``hostile_flare_client``."""

import sys

if any("nvflare.private.fed.app.client" in argument for argument in sys.orig_argv):
    from tests.attacked.hostile_flare_client import turn_hostile

    turn_hostile()
