"""`aligner_client.api` under the name it had before the client became a package of its own."""
