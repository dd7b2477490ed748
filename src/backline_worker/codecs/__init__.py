"""Tables in, answers out: one module per content type, chosen here.

A codec is bytes to table or columns to bytes, with no other input or output. Whatever a client sends either becomes a
pandas frame with an index from 0 or raises a ``RequestError`` that says what is wrong with it.
"""

from __future__ import annotations

from .accept import choose_output
from .compression import decompress
from .decoding import decode_table
from .encoding import available_output, encode_members, encode_predictions, encode_table
from .formats import SUPPORTED_INPUT, SUPPORTED_OUTPUT
from .texts import decode_texts
from .together import decode_together

__all__ = [
    "SUPPORTED_INPUT",
    "SUPPORTED_OUTPUT",
    "available_output",
    "choose_output",
    "decode_table",
    "decode_texts",
    "decode_together",
    "decompress",
    "encode_members",
    "encode_predictions",
    "encode_table",
]
