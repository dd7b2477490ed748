"""A fuzzer that knows the grammars: valid input of what strangers can send, damaged, and held to rules.

``python -m tests.fuzz --help`` has the long form; ``tests/integration/test_fuzz.py`` runs a short one, and replays what
the long form has ever found (``corpus/``).

::

    __main__ ── run.py ──starts, watches──▶ child.py ── targets/…  one process per target: a decoder may end it
                                               └── damage.py       how a valid input is damaged

A case depends on seed, target and number only, so whatever is found can be made again: from the report's number, or
from the bytes that are kept.
"""
