"""Qwen3-ForcedAligner on torch."""
