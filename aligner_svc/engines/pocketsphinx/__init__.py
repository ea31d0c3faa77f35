"""The embedded acoustic engine."""

from aligner_svc.engines.pocketsphinx.engine import PocketSphinxEngine

__all__ = ["PocketSphinxEngine"]
