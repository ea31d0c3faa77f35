"""Every setting of the service; `Settings()` reads them."""

from aligner_svc.config.settings import Settings

__all__ = ["Settings"]
