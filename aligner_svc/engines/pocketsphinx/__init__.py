"""The embedded acoustic engine. Nothing is imported here: worker processes load this package too, and need no engine."""
