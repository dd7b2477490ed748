"""What has been seen in each column of a file that is read in chunks, as letters that can be added up.

A column's type follows from all its values, so no chunk can tell it alone. Each chunk says by letters which kinds of
values it has seen, in the order in which they first came, as the order matters to pandas. The letters of chunks, added
in the order of the chunks, are the letters of the whole file, and its types follow from these.

CSV::

    v  an integer that fits int64      O  one that fits uint64 only      H  one above that    N  one below int64
    s  an integer with a minus sign    I  a number that is no integer    b  a truth value     m  a missing value
    t  text                            p  text that Python takes for an integer, such as 1_000
    J T P  as I, t and p, with a minus sign, at which pandas gives up looking once it has met a number like O
    X  text or numbers too large, not yet told apart                     ?  not all letters are known

JSON lines::

    i n u g  integers: not negative, negative, above int64, above uint64 or below int64
    f  float   s  string   t  true or false   m  null, or no such key   l  list   d  object

Arrow and Parquet, whose columns have types of their own::

    v  a value   m  a missing value
"""

from __future__ import annotations

from typing import Dict, Mapping

Types = Dict[str, str]
"""Letters by column name, in the order of the columns."""

TEXT = "t"


def is_text(letters: str) -> bool:
    """Say whether a column of CSV with these letters is one of text."""
    return "t" in letters or "T" in letters


def add(known: Mapping[str, str], own: Mapping[str, str], *, csv: bool) -> Types:
    """Return the letters of what is known and of what came after it; a column that only came now was missing before."""
    added = dict(known)
    for name, letters in own.items():
        before = added.get(name)
        if before is None:
            before = "m" if known else ""
        both = before + "".join(letter for letter in letters if letter not in before)
        added[name] = _settled(both) if csv and is_text(both) else both
    return added


def _settled(letters: str) -> str:
    """Return the letters that matter in a column of text.

    Numbers too large before anything that is no integer make pandas read the column in another way (missing values are
    text as well, or all are Python's integers); behind something that is no integer nothing matters any more.
    """
    kept = ""
    for letter in letters:
        if letter in "OHN":
            return letters
        kept += letter
        if letter in "IJbpPtT":
            break
    return kept if is_text(kept) else kept + TEXT


def unclear(types: Mapping[str, str], *, csv: bool) -> bool:
    """Say whether a column's type depends on what letters taken from the types of chunks cannot tell.

    Then the cells themselves have to be looked at, which is slow, and seldom: numbers beyond 64 bits.
    """
    if csv:
        return any("?" in letters and not set("OHNX").isdisjoint(letters) for letters in types.values())
    return any("u" in letters or "g" in letters for letters in types.values())
