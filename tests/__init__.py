"""The tests, in the rooms of the code they test; what they share is in kit/."""

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
"""The checkout."""
