"""Recordings longer than an engine takes at once."""
