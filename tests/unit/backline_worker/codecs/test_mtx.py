from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from backline_worker.codecs import encode_table, mtx
from backline_worker.errors import DecodeError, DecompressedTooLarge, EmptyBody, NotAcceptable
from backline_worker.types import Part
from tests.unit.backline_worker.codecs.bodies import decode

MTX = "text/mtx"
BANNER = b"%%MatrixMarket matrix coordinate real general\n"


def names_part(content: bytes, name: str = "sparse.colnames") -> Part:
    return Part(name, "text/plain", content)


@pytest.mark.parametrize(
    "body",
    [
        BANNER + b"3 2 2\n1 1 1.5\n3 2 -2e3\n",
        BANNER + b"% one\n%two\n\n3 2 2\n1 1 1.5\n\n 3\t2  -2e3",
        BANNER.replace(b"\n", b"\r\n") + b"3 2 2\r\n1 1 1.5\r\n3 2 1\r\n",
        BANNER.upper().replace(b"%%MATRIXMARKET", b"%%MatrixMarket") + b"1 1 1\n1 1 1e-320\n",
        BANNER + b"2 2 0\n",
        BANNER + b"2 2 3\n1 1 1\n1 1 2\n2 2 3\n",  # the same place twice adds up
        b"%%MatrixMarket matrix coordinate integer symmetric\n2 2 2\n1 1 1\n2 1 3\n",
        b"%%MatrixMarket matrix coordinate pattern general\n2 2 2\n1 1\n2 1\n",
        b"%%MatrixMarket matrix coordinate pattern symmetric\n3 3 2\n3 1\n2 2\n",
        b"%%MatrixMarket matrix array real general\n2 3\n1\n2\n3\n4\n5\n6\n",
        b"%%MatrixMarket matrix array integer symmetric\n3 3\n1\n2\n3\n4\n5\n6\n",
        b"%%MatrixMarket matrix array real general\n1 1\nnan\n",
    ],
)
def test_well_formed_bodies_read_as_scipy_reads_them(body: bytes) -> None:
    expected = scipy.io.mmread(io.BytesIO(body))
    dense = expected.toarray() if scipy.sparse.issparse(expected) else expected
    frame = decode(body, MTX)
    np.testing.assert_array_equal(frame.to_numpy(), dense)
    assert list(frame.columns) == [str(place) for place in range(dense.shape[1])]
    assert all(isinstance(dtype, pd.SparseDtype) for dtype in frame.dtypes)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"a,b\n1,2\n", "line 1 .* banner"),
        (b"%%MatrixMarket", "banner"),
        (BANNER.replace(b"real", b"complex") + b"1 1 0\n", "'complex'"),
        (BANNER.replace(b"general", b"hermitian") + b"1 1 0\n", "'hermitian'"),
        (BANNER.replace(b"coordinate", b"x") + b"1 1 0\n", "'x'"),
        (b"%%MatrixMarket matrix array pattern general\n1 1\n1\n", "cannot be a pattern"),
        (BANNER, "no line with its sizes"),
        (BANNER + b"% comment", "no line with its sizes"),
        (BANNER + b"2 2\n", "line 2 .* rows, columns and entries"),
        (BANNER + b"%\n-1 2 0\n", "line 3"),
        (BANNER + b"1.5 2 0\n", "line 2"),
        (BANNER + b"2 2 99999999999999999999\n", "line 2"),
        (BANNER + b"2 2 999999999\n1 1 1\n", "cannot hold them"),
        (BANNER + b"2 2 2\n1 1 1.25\n1 \n", "cannot hold them|line 4"),
        (BANNER + b"2 2 2\n1 1 1.000000\n", "declares 2 entries and has 1"),
        (BANNER + b"2 2 1\n1 1 1\n2 2 2\n", "declares 1 entries and has 2"),
        (BANNER + b"2 2 0\n1 1 1\n", "declares no entries"),
        (BANNER + b"2 2 1\n3 1 1\n", r"entry 1 .*line 3.* row 3, and there are 2"),
        (BANNER + b"2 2 2\n1 1 1\n1 0 1\n", "entry 2 .* column 0"),
        (BANNER + b"2 2 1\n-1 1 1\n", "row -1"),
        (BANNER + b"2 2 2\n1 1 1\n1 2 x\n", "line 4 .* '1 2 x'"),
        (BANNER + b"2 2 2\n1 1 1\n1 2\n     \n", "line 4"),
        (BANNER + b"2 2 2\n1 1 1\n1 2 3 4\n", "line 4"),
        (BANNER + b"2 2 2\n1 1 1 1\n1 2 3\n", "line 3"),
        (BANNER + b"2 2 1\n1.5 1 1\n", "line 3"),
        (BANNER + b"2 2 1\n1 1 1\x00\n", "NUL|line 3"),
        (BANNER + b"2 2 1\nnan 1 1\n", "line 3"),
        (BANNER + b"2 2 1\n1 1 \xff\xff\n", "line 3"),
        (BANNER + b'2 2 1\n1 1 "1"\n', "line 3"),
        (BANNER + b"2 2 1\n99999999999999999999 1 1\n", "line 3"),
        (BANNER.replace(b"real", b"integer") + b"2 2 1\n1 1 1.5\n", "line 3"),
        (BANNER.replace(b"general", b"symmetric") + b"2 3 0\n", "2 rows and 3 columns"),
        (BANNER.replace(b"general", b"symmetric") + b"2 2 1\n1 2 1\n", "above the diagonal"),
        (b"%%MatrixMarket matrix array real general\n2 2\n1\n2\n3\n4 5\n", "line 6|has 5"),
        (BANNER + b"2 0 0\n", "no columns"),
    ],
)
def test_what_is_malformed_is_refused_with_its_line(body: bytes, words: str) -> None:
    with pytest.raises(DecodeError, match=words):
        decode(body, MTX)


def test_no_rows_are_empty() -> None:
    with pytest.raises(EmptyBody):
        decode(BANNER + b"0 2 0\n", MTX)


@pytest.mark.parametrize(
    "sizes",
    [b"1 99999999999 0\n", b"99999999999 1 0\n", b"1 2000000 0\n", b"900000000000000000 900000000000000000 0\n"],
)
def test_a_small_body_cannot_declare_a_large_table(sizes: bytes) -> None:
    with pytest.raises(DecompressedTooLarge, match="line 2"):
        decode(BANNER + sizes, MTX)


@pytest.mark.parametrize("name", ["sparse.colnames", "X.colnames", "colnames"])
@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"a\nb\n", ["a", "b"]),
        (b"\xef\xbb\xbfa\r\nb", ["a", "b"]),
        (b"a,b\n", ["a", "b"]),
        (b'"x, y",b\n', ["x, y", "b"]),
        (b'"x, y"\nb\n', ["x, y", "b"]),
        (b"x, y\nb\n", ["x, y", "b"]),
        ("ä\n😀\n".encode(), ["ä", "😀"]),
    ],
)
def test_column_names_come_from_another_part(content: bytes, names: list[str], name: str) -> None:
    frame = decode(BANNER + b"1 2 1\n1 2 5\n", MTX, others=[Part("y", "", b"z"), names_part(content, name)])
    assert list(frame.columns) == names


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a\n", "1 names"),
        (b"a\nb\nc\n", "3 names .* 2 columns"),
        (b"a\na\n", "'a' twice"),
        (b"\xff\nb", "UTF-8"),
        (b"", "0 names"),
    ],
)
def test_column_names_that_do_not_fit_are_refused(content: bytes, words: str) -> None:
    with pytest.raises(DecodeError, match=words):
        decode(BANNER + b"1 2 1\n1 2 5\n", MTX, others=[names_part(content)])


@given(
    hnp.arrays("float64", st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=st.floats(allow_nan=False)),
    st.booleans(),
)
def test_a_table_that_is_written_reads_back(values: Any, sparse: bool) -> None:
    columns = [f"c, {place}" for place in range(values.shape[1])]
    frame = pd.DataFrame(values, columns=columns)
    if sparse:
        frame = pd.DataFrame.sparse.from_spmatrix(scipy.sparse.csc_matrix(values), columns=columns)
    body = encode_table(frame, MTX)
    got = decode(body, MTX, others=[names_part(mtx.encode_names(frame))])
    assert list(got.columns) == columns
    np.testing.assert_array_equal(got.to_numpy(), values)
    np.testing.assert_array_equal(scipy.io.mmread(io.BytesIO(body)).toarray(), values)


def test_integers_stay_integers_and_text_is_not_written() -> None:
    frame = pd.DataFrame.sparse.from_spmatrix(scipy.sparse.csc_matrix(np.array([[0, 5], [7, 0]])))
    body = encode_table(frame, MTX)
    assert body == b"%%MatrixMarket matrix coordinate integer general\n2 2 2\n1 2 5\n2 1 7\n"
    with pytest.raises(NotAcceptable, match=r"'s'.*text/csv"):
        encode_table(pd.DataFrame({"s": ["x"]}), MTX)


def test_a_dense_matrix_that_is_sparse_with_another_fill_value_is_written_right() -> None:
    frame = pd.DataFrame({"a": pd.arrays.SparseArray([1.0, 1.0, 3.0], fill_value=1.0)})
    np.testing.assert_array_equal(decode(encode_table(frame, MTX), MTX).to_numpy(), [[1], [1], [3]])
