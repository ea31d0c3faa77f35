"""Targets for atheris (libFuzzer): `python -m tests.fuzz.fuzz_audio -runs=100000`, and the same for _text and _messages.

Without a folder among the arguments a target starts from seeds of its own, made anew in a temporary one. Every argument
of libFuzzer's is taken; what crashes is written to ./crash-... and run again by giving it as the argument.
"""
