"""Environments that are built for models: what a folder asks for, where it is kept, how it is made.

``recipe`` says what is asked for, ``cache`` keeps what was made and lets one process at a time make it, ``build`` makes
it by ``uv``, and ``prepare`` is what the server and the commands call.
"""
