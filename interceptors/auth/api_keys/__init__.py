"""API keys: their format, where they are stored, and how calls are authenticated with them.

Imports nothing, so that servers without API keys do not wait for sqlalchemy.
"""
