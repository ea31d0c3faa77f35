"""What libav does not say of a file, or says wrongly: read here from its bytes, in Python and within limits."""
