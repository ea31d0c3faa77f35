"""Many clients of every kind at one prod server for a long time: what was unexpected, and what grew."""
