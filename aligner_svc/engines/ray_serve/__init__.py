"""The engine's processes on a Ray cluster. The server's own process imports no ray: a child process holds the connection."""
