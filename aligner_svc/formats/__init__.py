"""`aligner_client.formats` under the name it had before the client became a package of its own."""

from aligner_client.formats import *  # noqa: F403
from aligner_client.formats import __all__ as __all__
