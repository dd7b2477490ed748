"""How a valid input is damaged: token by token of its grammar, and byte by byte."""

from __future__ import annotations

import copy
import json
import random
import re
import struct
from collections.abc import Sequence
from typing import Any

BOM = b"\xef\xbb\xbf"
LONE_SURROGATE = b"\xed\xa0\x80"
NUMBERS = (
    b"0", b"-0", b"-0.0", b"1e999", b"-1e999", b"1e-999", b"9" * 19, b"9" * 20, b"-9223372036854775809", b"9" * 400,
    b"9" * 5000, b"0." + b"0" * 400 + b"1", b"0x10", b"1_000", b"1,5", b"+1", b".5", b"5.", b"1e", b"--1", b"nan",
    b"NaN",
    b"-nan", b"inf", b"-Infinity", b"Infinity", b"null", b"None", b"NA", b"true", b"True", b"1.7976931348623157e308",
    b"4.9e-324", b"\xd9\xa1\xd9\xa2", b"1e400", b"1E+2", b"00012", b"2147483648", b"18446744073709551616",
)  # fmt: skip
TEXTS = (
    b"", b" ", b"\0", b"\t", b"\x1a", b"\x7f", b"\x85", b"\xe2\x80\xa8", b"\xff", b"\xff\xfe", b"\xfe\xff", BOM,
    LONE_SURROGATE, b"\xf0\x9f\x98\x80", b"\xcc\x81", b"%s", b"%d%n", b"{}", b"{0}", b"${x}", b"../../x", b"__proto__",
    b"\\", b"'", b"=1+1", b"<a>", b"e\xcc\x81" * 5, b"x" * 300, b"2020-02-30T25:61:61Z", b"X",
)  # fmt: skip
WORDS = (
    b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\xff" * 4, b"\0" * 4, b"\1\0\0\0", b"\xff" * 7 + b"\x7f", b"\0" * 8,
    b"\xff" * 8,
    b"\0\0\0\0\1\0\0\0", b"\0\0\0\x7f", b"\0\0\0\0\0\0\0\x80", b"\xfe\xff\xff\xff", b"\x00\x00\x01\x00",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, -(2**63) - 1, 2**64, 10**30, 0.5, -0.0, 1e308, float("nan"),
    float("inf"), "", "x",
    "1", "NaN", "\0", "\ud800", "é", "x" * 5000, [], [[]], {}, [None], [1, "x", None], {"a": 1}, {"": {}},
    [{"a": []}], "../x",
)  # fmt: skip
_REPEATS = (2, 2, 2, 3, 10, 100, 1000)


def damaged(
    draw: random.Random, body: bytes, tokens: re.Pattern[bytes], nasty: Sequence[bytes], *, whole: float = 0.05
) -> bytes:
    """Return the body with some changes, mostly of its tokens; unchanged with the probability ``whole``."""
    kind = draw.random()
    if kind < whole:
        return body
    if kind < 0.75:
        return damaged_tokens(draw, body, tokens, nasty)
    if kind < 0.9:
        return damaged_bytes(draw, body)
    return damaged_bytes(draw, damaged_tokens(draw, body, tokens, nasty))


def damaged_tokens(draw: random.Random, body: bytes, tokens: re.Pattern[bytes], nasty: Sequence[bytes]) -> bytes:
    """Return the body with tokens lost, doubled, moved, replaced, repeated, or cut off after one."""
    pieces = tokens.findall(body)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 6))):
        if not pieces:
            return draw.choice(nasty)
        place = draw.randrange(len(pieces))
        kind = draw.randrange(12)
        if kind <= 3:
            pieces[place] = draw.choice(nasty)
        elif kind == 4:
            pieces.insert(place, draw.choice(nasty))
        elif kind == 5:
            del pieces[place]
        elif kind == 6:
            del pieces[place : place + draw.choice((2, 3, 5, 20))]
        elif kind == 7:
            other = draw.randrange(len(pieces))
            pieces[place], pieces[other] = pieces[other], pieces[place]
        elif kind == 8:
            start = draw.randrange(len(pieces))
            pieces[place:place] = pieces[start : start + draw.choice((1, 1, 2, 5, 30))]
        elif kind == 9:
            pieces[place] = damaged_bytes(draw, pieces[place]) if pieces[place] else draw.choice(nasty)
        elif kind == 10:
            times = draw.choice(_REPEATS) if draw.random() < 0.99 else 50_000
            pieces[place] = pieces[place][: 200_000 // times] * times
        elif draw.random() < 0.3:
            del pieces[place:]
    return b"".join(pieces)


def damaged_document(draw: random.Random, document: Any, keys: Sequence[str]) -> bytes:
    """Return JSON that is well-formed and not what it should be: values of other kinds, keys lost, doubled, renamed."""
    document = copy.deepcopy(document)
    for _ in range(draw.choice((1, 1, 2, 4))):
        places: list[tuple[Any, Any]] = []
        _places(document, places)
        if not places:
            break
        inside, place = draw.choice(places)
        kind = draw.randrange(6)
        if kind <= 2:
            inside[place] = copy.deepcopy(draw.choice(VALUES))
        elif kind == 3:
            del inside[place]
        elif isinstance(inside, dict):
            inside[draw.choice((*keys, place + "x"))] = inside.pop(place) if kind == 4 else inside[place]
        else:
            inside.insert(place, copy.deepcopy(inside[draw.randrange(len(inside))]))
    return json.dumps(document, ensure_ascii=draw.random() < 0.5).encode("utf-8", "surrogatepass")


def _places(node: Any, places: list[tuple[Any, Any]]) -> None:
    for place in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        places.append((node, place))
        _places(node[place], places)


def damaged_bytes(draw: random.Random, body: bytes) -> bytes:
    """Return the body with one to eight changes of the kinds that break parsers."""
    changed = bytearray(body)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 8))):
        if not changed:
            break
        place, kind = draw.randrange(len(changed)), draw.randrange(8)
        if kind == 0:
            changed[place] ^= 1 << draw.randrange(8)
        elif kind == 1:
            changed[place] = draw.randrange(256)
        elif kind == 2:
            word = draw.choice(WORDS)
            changed[place : place + len(word)] = word
        elif kind == 3:
            del changed[place : place + draw.choice((1, 4, 8, 64))]
        elif kind == 4:
            changed[place:place] = draw.randbytes(draw.choice((1, 4, 8)))
        elif kind == 5:
            other = draw.randrange(len(changed))
            changed[place : place + 8] = changed[other : other + 8]
        elif kind == 6:
            word = draw.choice(WORDS)
            place &= ~3  # where the integers of binary formats lie
            changed[place : place + len(word)] = word
        elif draw.random() < 0.2:
            del changed[place:]
    return bytes(changed)


def damaged_integers(draw: random.Random, body: bytes, start: int, end: int, step: int) -> bytes:
    """Return the body with aligned little-endian integers of a region a little, or very, wrong."""
    changed = bytearray(body)
    for _ in range(draw.choice((1, 1, 2, 4))):
        size = draw.choice((2, 4, 4, 8))
        places = (end - size - start) // step
        if places <= 0:
            break
        place = start + step * draw.randrange(places)
        form = {2: "<h", 4: "<i", 8: "<q"}[size]
        (value,) = struct.unpack_from(form, changed, place)
        most = (1 << (8 * size - 1)) - 1
        new = draw.choice(
            (
                0,
                1,
                -1,
                most,
                -most - 1,
                value + 1,
                value - 1,
                value + 8,
                value * 2,
                -value,
                draw.randrange(256),
                most // 8,
            )
        )
        struct.pack_into(form, changed, place, max(-most - 1, min(most, new)))
    return bytes(changed)


def cut(draw: random.Random, body: bytes) -> list[int]:
    """Return the places to cut a stream at, sorted: nowhere, somewhere, or after every byte."""
    kind = draw.randrange(6)
    if kind == 0:
        return []
    if kind == 1 and len(body) < 400:
        return list(range(1, len(body)))
    return sorted(draw.randrange(len(body) + 1) for _ in range(draw.choice((1, 1, 2, 5))))


def pieces_of(body: bytes, cuts: Sequence[int]) -> list[bytes]:
    """Return the body in the pieces that ``cut`` has chosen."""
    return [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
