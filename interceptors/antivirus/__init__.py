"""No upload is worked on before ClamAV has seen it: the client of clamd, its connections, verdicts, and the guard that asks."""
