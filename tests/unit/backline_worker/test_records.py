from __future__ import annotations

import csv
import io

from hypothesis import given, settings
from hypothesis import strategies as st

from backline_worker.records import last_end, split

TEXTS = st.text(st.sampled_from('ab,"\n\r'), max_size=40)
FIELDS = st.one_of(st.sampled_from(["a", "", "x y", '"q"', '"a,b"', '"l\nm"', '"s ""t"" u"', '5"', 'a"b"', '"c\r\nd"']))


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.lists(FIELDS, min_size=1, max_size=3), min_size=1, max_size=8), st.sampled_from(["\n", "\r\n"]))
def test_records_are_those_of_a_csv_reader(rows: list[list[str]], end: str) -> None:
    text = "".join(",".join(row) + end for row in rows)
    pieces = [text.encode()[start:stop].decode() for start, stop, _ in split(text.encode())]
    assert "".join(pieces) == text
    each = [next(csv.reader(io.StringIO(piece, newline="")), []) for piece in pieces]
    assert each == list(csv.reader(io.StringIO(text, newline="")))


@settings(max_examples=2000, deadline=None)
@given(TEXTS)
def test_the_last_end_is_that_of_the_last_whole_record(text: str) -> None:
    data = text.encode()
    ends = [end for _, end, _ in split(data, final=False)]
    found = last_end(data, quotes=True)
    if b"\r" not in data:
        assert found == (ends[-1] if ends else 0)
    assert not found or found in ends or data[:found].endswith(b"\r")


@given(TEXTS)
def test_nothing_is_lost_between_records(text: str) -> None:
    data = text.encode()
    places = [(start, end) for start, end, _ in split(data)]
    assert [start for start, _ in places[1:]] == [end for _, end in places[:-1]]
    assert (places[0][0], places[-1][1]) == (0, len(data)) if places else not data
