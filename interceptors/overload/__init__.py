"""Overload protection: admits calls up to an adaptive limit, lets some wait, refuses the rest with a time to retry."""
