"""Scans every upload with ClamAV before it is worked on: the client of clamd, its connections, verdicts, and the guard."""
