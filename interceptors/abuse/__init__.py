"""Addresses whose calls keep failing are kept out for a while: counts (windows), blocks, and the guard that asks them."""
