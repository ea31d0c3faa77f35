"""Decodes an upload while it arrives."""
