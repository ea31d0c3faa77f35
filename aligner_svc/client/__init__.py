"""`aligner_client` under the name it had before it became a package of its own."""

from aligner_client import *  # noqa: F403
from aligner_client import __all__ as __all__
