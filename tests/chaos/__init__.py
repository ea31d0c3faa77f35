"""Parts of a running service are killed, frozen and changed under load: what becomes of the calls."""
