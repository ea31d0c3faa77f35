"""The embedded acoustic engine. Imports nothing: worker processes load this package too, without the engine."""
