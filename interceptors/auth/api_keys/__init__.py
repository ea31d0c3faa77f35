"""API keys: what they look like, where they are kept, and who is let in with one.

Nothing is imported here: servers without API keys must not wait for sqlalchemy.
"""
