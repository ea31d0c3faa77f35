"""Attacks on a real server of the prod profile: `python -m tests.attack`, or `make attack`.

A module holds the attacks of some kinds, and `kinds.py` lists the kinds. An attack returns "" if the server held, else what
got through. A new one goes into the list of its kind; it must be refused as the documentation says, not merely fail.
"""
