"""Checks of the settings, this machine, and the services the server depends on."""
