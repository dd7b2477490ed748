from __future__ import annotations

from typing import Any

import pytest

from backline_worker.contract.unstructured import Query, read_input, write_result
from backline_worker.errors import DecodeError, ResultInvalid


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        ("", b"h\xc3\xa9", ("hé", "", "utf8")),
        ("text/plain", b"a", ("a", "text/plain", "utf8")),
        ("text/csv; charset=latin-1", b"\xe9", ("é", "text/csv", "latin-1")),
        ('Application/JSON; charset="utf-16"', "é".encode("utf-16"), ("é", "application/json", "utf-16")),
        ("image/png", b"\x89P", (b"\x89P", "image/png", None)),
        ("application/octet-stream; charset=utf8", b"a", (b"a", "application/octet-stream", "utf8")),
        ("application/x-www-form-urlencoded", b"a=1", (b"a=1", "application/x-www-form-urlencoded", None)),
        ("multipart/form-data; boundary=x", b"--x--", (b"--x--", "multipart/form-data", None)),
    ],
    ids=str,
)
def test_text_is_decoded_and_everything_else_stays_bytes(content_type: str, body: bytes, expected: Any) -> None:
    assert read_input(content_type, body) == expected


@pytest.mark.parametrize("content_type", ["text/plain", "text/plain; charset=klingon"])
def test_text_that_cannot_be_decoded_is_the_clients_to_mend(content_type: str) -> None:
    with pytest.raises(DecodeError, match=r"utf8|klingon"):
        read_input(content_type, b"\xff\xfe\xff")


@pytest.mark.parametrize("charset", ["punycode", "idna", "unicode_escape", "rot13", "utf\0", "x" * 300])
def test_a_name_that_python_knows_and_no_text_comes_in_is_an_unknown_charset(charset: str) -> None:
    with pytest.raises(DecodeError, match="unknown charset"):
        read_input(f"text/plain; charset={charset}", b"x" * 150_000 + b"-" + b"abcd" * 40_000)


@pytest.mark.parametrize(
    ("result", "content_type", "body"),
    [
        ("é", "text/plain; charset=utf-8", "é".encode()),
        (None, "text/plain; charset=utf-8", b""),
        (b"\x00", "application/octet-stream", b"\x00"),
        (("{}", {"mimetype": "application/json"}), "application/json; charset=utf-8", b"{}"),
        ((b"\x89", {"mimetype": "image/png"}), "image/png", b"\x89"),
        (("é", {"charset": "latin-1"}), "text/plain; charset=latin-1", b"\xe9"),
        ((b"a", {"mimetype": "text/plain", "charset": "utf8"}), "text/plain; charset=utf-8", b"a"),
        (("a", None), "text/plain; charset=utf-8", b"a"),
        (bytearray(b"a"), "application/octet-stream", b"a"),
    ],
    ids=str,
)
def test_result_and_its_defaults(result: Any, content_type: str, body: bytes) -> None:
    answer = write_result(result)
    assert (answer.content_type, answer.body) == (content_type, body)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"a": 1}, "returned dict; expected str, bytes or None"),
        (("a", "b", "c"), "tuple of str, str, str"),
        (("a", {"mimetype": 3}), "mimetype 3"),
        (("a", {"mimetype": "text/plain\r\nx: y"}), "mimetype"),
        (("a", {"mimetype": "text/\0plain"}), "mimetype"),
        (("a", {"charset": "\u20ac"}), "charset"),
        (("a", {"mimetype": "x" * 2000}), "mimetype"),
        (("é", {"charset": "ascii"}), "not ascii"),
        (("é", {"charset": "klingon"}), "unknown charset"),
    ],
    ids=str,
)
def test_result_of_another_kind_is_refused(result: Any, message: str) -> None:
    with pytest.raises(ResultInvalid, match=message):
        write_result(result)


def test_query_is_a_dict_of_last_values_with_all_of_them_at_hand() -> None:
    query = Query({"a": ["1", "2"], "b": []})
    assert query == {"a": "2"}
    assert query.getlist("a") == ["1", "2"]
    assert query.getlist("c") == []
