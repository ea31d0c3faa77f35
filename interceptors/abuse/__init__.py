"""Blocks addresses whose calls keep failing: counts (windows), blocks, and the guard that uses them."""
