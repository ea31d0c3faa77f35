"""How much a caller may use: classes of callers, and the stores that count."""
