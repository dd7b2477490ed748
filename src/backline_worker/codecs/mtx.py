"""Matrix Market, the text format of sparse matrices (https://math.nist.gov/MatrixMarket/formats.html).

::

    %%MatrixMarket matrix coordinate real general
    % comments
    rows columns entries
    row column value          counted from 1; no value in pattern matrices, which are ones

``array`` has all values, column by column, one a line. Our own strict reader: scipy's segfaults on some damaged files.
Entries of the same place add up, as scipy has it. Column names travel in another part of the request.

What does not survive a round trip: column names, the type of dense columns, the sign of zero.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, NoReturn, Optional, Sequence, Tuple

from ..errors import DecodeError, DecompressedTooLarge, EmptyBody, NotAcceptable
from ..types import Buffer, Part
from . import text
from ._libraries import pandas_for, scipy_sparse_for

if TYPE_CHECKING:
    from pandas import DataFrame

NAME_PARTS = ("sparse.colnames", "X.colnames", "colnames")

_WHAT = "the Matrix Market file"
_HEADER_BYTES = 1 << 20
# A text model may well have more columns than a row has bytes; these many are nobody's attack yet.
_ALLOWANCE = 1 << 20
# What pandas takes for one sparse column, however empty.
_BYTES_PER_COLUMN = 1024


class _Header(NamedTuple):
    layout: str  # "coordinate" or "array"
    field: str  # "real", "integer" or "pattern"
    symmetric: bool
    rows: int
    columns: int
    entries: int  # lines that follow
    start: int  # offset of the first of them
    line: int  # and its number


def decode(data: Buffer, others: Sequence[Part], *, max_bytes: int) -> DataFrame:
    """Return a frame of sparse columns, named by the part ``sparse.colnames`` or ``"0"``, ``"1"``, ... without one.

    Raises ``EmptyBody`` without rows, ``DecodeError`` with the line for what is malformed, ``DecompressedTooLarge``
    when the declared size is over ``max_bytes`` or out of all proportion to the body.
    """
    pandas = pandas_for("reading Matrix Market")
    sparse = scipy_sparse_for("reading Matrix Market")
    data = text.strip_bom(data)
    header = _read_header(data, max_bytes)
    names = _column_names(others, header.columns)
    if not header.rows:
        raise EmptyBody("the Matrix Market file has no rows")
    if not header.columns:
        raise DecodeError("the Matrix Market file has no columns")
    if header.layout == "array":
        matrix = _read_array(pandas, sparse, data, header)
    else:
        matrix = _read_coordinates(pandas, sparse, data, header)
    return pandas.DataFrame.sparse.from_spmatrix(matrix, columns=names)


def encode(frame: DataFrame) -> bytes:
    """Return the frame in coordinate form, entries row by row; the names go separately (``encode_names``).

    Raises ``NotAcceptable`` when a column is not numeric.
    """
    import numpy

    matrix = _to_matrix(frame)
    order = numpy.lexsort((matrix.col, matrix.row))
    values = matrix.data[order]
    is_integer = values.dtype.kind in "iub"
    values = values.astype("int64" if is_integer and values.dtype.kind != "u" else values.dtype)
    rendered = map(str, values.tolist()) if is_integer else map(float.__repr__, values.astype("float64").tolist())
    rows, columns = (matrix.row[order] + 1).tolist(), (matrix.col[order] + 1).tolist()
    lines = [
        "%%MatrixMarket matrix coordinate {} general".format("integer" if is_integer else "real"),
        f"{matrix.shape[0]} {matrix.shape[1]} {len(values)}",
    ]
    lines += map("{} {} {}".format, rows, columns, rendered)
    return ("\n".join(lines) + "\n").encode("ascii")


def encode_names(frame: DataFrame) -> bytes:
    """Return the names that belong to ``encode``: one a line, quoted as in a CSV where they need it."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([str(name)] for name in frame.columns)
    return out.getvalue().encode("utf-8", "replace")


def _to_matrix(frame: DataFrame) -> Any:
    sparse = scipy_sparse_for("text/mtx")
    # Sparse columns whose usual value is not zero are written as dense ones are.
    if all(getattr(dtype, "fill_value", None) == 0 for dtype in frame.dtypes):
        return frame.sparse.to_coo()
    kinds = {str(name): getattr(getattr(dtype, "subtype", dtype), "kind", "O") for name, dtype in frame.dtypes.items()}
    for name, kind in kinds.items():
        if kind not in "biuf":
            raise NotAcceptable(f"text/mtx carries numbers only, and column {name!r} has none; ask for text/csv")
    return sparse.coo_matrix(frame.to_numpy(dtype="float64"))


def _read_header(data: Buffer, max_bytes: int) -> _Header:
    head = bytes(data[:_HEADER_BYTES])
    end = head.find(b"\n")
    words = head[: end if end >= 0 else len(head)].decode("latin-1").lower().split()
    if len(words) != 5 or words[0] != "%%matrixmarket" or words[1] != "matrix":
        raise DecodeError(
            "line 1 of the Matrix Market file is not its banner, such as %%MatrixMarket matrix coordinate real general"
        )
    layout, field, symmetry = words[2:]
    _one_of(layout, ("coordinate", "array"), "layout")
    _one_of(field, ("real", "double", "integer", "pattern"), "field")
    _one_of(symmetry, ("general", "symmetric"), "symmetry")
    if layout == "array" and field == "pattern":
        raise DecodeError("line 1 of the Matrix Market file: an array has values, so it cannot be a pattern")
    line = 1
    while end >= 0:
        start = end + 1
        end = head.find(b"\n", start)
        if end < 0 and len(head) < len(data):
            break
        content = head[start : end if end >= 0 else len(head)].strip()
        line += 1
        if content and not content.startswith(b"%"):
            sizes = _sizes(content, 2 if layout == "array" else 3, line)
            start = end + 1 if end >= 0 else len(data)
            return _header(len(data), (layout, field, symmetry), sizes, start=start, line=line, max_bytes=max_bytes)
    raise DecodeError(f"the Matrix Market file has no line with its sizes within its first {len(head)} bytes")


def _header(
    length: int, banner: Tuple[str, str, str], sizes: List[int], *, start: int, line: int, max_bytes: int
) -> _Header:
    """Return the header, once the sizes on ``line`` are in proportion to the body of ``length`` bytes."""
    layout, field, symmetry = banner
    symmetric = symmetry == "symmetric"
    rows, columns = sizes[:2]
    if symmetric and rows != columns:
        raise DecodeError(f"the Matrix Market file is symmetric and has {rows} rows and {columns} columns")
    left = length - start
    if layout == "array":
        entries = rows * (rows + 1) // 2 if symmetric else rows * columns
        shortest = 2
    else:
        entries = sizes[2]
        shortest = 4 if field == "pattern" else 6
    # The last line may lack its end.
    if entries * shortest > left + 1:
        raise DecodeError(
            f"line {line} of the Matrix Market file declares {entries} entries, and the {left} bytes after it "
            "cannot hold them"
        )
    allowed = _ALLOWANCE + length
    if rows > allowed or columns > allowed or rows * 8 > max_bytes or columns * _BYTES_PER_COLUMN > max_bytes:
        raise DecompressedTooLarge(
            f"line {line} of the Matrix Market file declares {rows} rows and {columns} columns; with {length} "
            f"bytes of data and a limit of {max_bytes} bytes that is too much"
        )
    return _Header(layout, field, symmetric, rows, columns, entries, start, line + 1)


def _one_of(word: str, known: Sequence[str], what: str) -> None:
    if word not in known:
        raise DecodeError(
            "line 1 of the Matrix Market file: {} {!r} is not read here; it can be {}".format(
                what, word[:40], " or ".join(known)
            )
        )


def _sizes(content: bytes, count: int, line: int) -> List[int]:
    words = content.split()
    if len(words) != count or not all(word.isdigit() and len(word) <= 18 for word in words):
        raise DecodeError(
            "line {} of the Matrix Market file must have {}, not {!r}".format(
                line, "rows and columns" if count == 2 else "rows, columns and entries", content[:60].decode("latin-1")
            )
        )
    return [int(word) for word in words]


def _read_coordinates(pandas: Any, sparse: Any, data: Buffer, header: _Header) -> Any:
    import numpy

    names = ["row", "column"] if header.field == "pattern" else ["row", "column", "value"]
    table = _read_lines(pandas, data, header, names)
    rows = table["row"].to_numpy() - 1
    columns = table["column"].to_numpy() - 1
    for what, values, size in (("row", rows, header.rows), ("column", columns, header.columns)):
        outside = (values < 0) | (values >= size)
        if outside.any():
            place = int(outside.argmax())
            raise DecodeError(
                f"entry {place + 1} of the Matrix Market file (line {header.line + place}, without blank lines) is in "
                f"{what} {int(values[place]) + 1}, and there are {size}"
            )
    values = numpy.ones(len(rows)) if header.field == "pattern" else table["value"].to_numpy()
    if header.symmetric:
        above = rows < columns
        if above.any():
            place = int(above.argmax())
            raise DecodeError(
                f"entry {place + 1} of the Matrix Market file lies above the diagonal; a symmetric matrix has its "
                "lower half only"
            )
        below = rows > columns
        values = numpy.concatenate([values, values[below]])
        rows, columns = (
            numpy.concatenate([rows, columns[below]]),
            numpy.concatenate([columns, rows[below]]),
        )
    return sparse.coo_matrix((values, (rows, columns)), shape=(header.rows, header.columns)).tocsc()


def _read_array(pandas: Any, sparse: Any, data: Buffer, header: _Header) -> Any:
    import numpy

    values = _read_lines(pandas, data, header, ["value"])["value"].to_numpy()
    if not header.symmetric:
        return sparse.csc_matrix(values.reshape((header.rows, header.columns), order="F"))
    dense = numpy.zeros((header.rows, header.rows), dtype=values.dtype)
    # The lower half column by column is the upper half row by row.
    columns, rows = numpy.triu_indices(header.rows)
    dense[rows, columns] = values
    dense[columns, rows] = values
    return sparse.csc_matrix(dense)


def _read_lines(pandas: Any, data: Buffer, header: _Header, names: List[str]) -> Any:
    """Return the entries as a frame of int64 places and float64 or int64 values, one line each."""
    body = memoryview(data)[header.start :]
    value_type = "int64" if header.field == "integer" else "float64"
    first = bytes(body[:4096]).strip().partition(b"\n")[0].split()
    if header.entries and len(first) != len(names):
        _refuse_line(header.line, names, b" ".join(first))
    if not header.entries:
        if bytes(body[:4096]).strip():
            raise DecodeError("the Matrix Market file declares no entries and has some")
        return pandas.DataFrame(
            {name: pandas.Series([], dtype=value_type if name == "value" else "int64") for name in names}
        )
    if text.find_byte(body, b"\0") >= 0:
        raise DecodeError("the Matrix Market file has a NUL byte among its entries")
    try:
        table = pandas.read_csv(
            text.open_bytes(body),
            sep=r"\s+",
            header=None,
            names=names,
            index_col=False,
            dtype={name: value_type if name == "value" else "int64" for name in names},
            keep_default_na=False,
            na_values=["nan", "NaN", "NAN"],
            quoting=csv.QUOTE_NONE,
            low_memory=False,
            **_exact_floats(pandas),
        )
    except MemoryError:
        raise
    except Exception as exc:
        raise _find_fault(body, header, names) or DecodeError(
            f"the entries of the Matrix Market file cannot be read: {exc}"
        ) from exc
    if len(table) != header.entries:
        raise DecodeError(f"the Matrix Market file declares {header.entries} entries and has {len(table)}")
    # pandas before 1.3 drops what is too much in a line.
    if _count_words(body) != len(table) * len(names):
        raise _find_fault(body, header, names) or DecodeError("a line of the Matrix Market file has too many words")
    return table


def _count_words(body: memoryview) -> int:
    """Return how many words there are between blanks and line ends."""
    import numpy

    in_word = numpy.ones(256, dtype=bool)
    in_word[list(b" \t\r\n")] = False
    count = 0
    before = False
    for piece in text.chunks(body):
        inside = in_word[numpy.frombuffer(piece, dtype=numpy.uint8)]
        count += int(numpy.count_nonzero(inside[1:] & ~inside[:-1])) + int(inside[0] and not before)
        before = bool(inside[-1])
    return count


def _exact_floats(pandas: Any) -> Dict[str, Any]:
    """Return the option that has floats read as Python reads them, which is the default since pandas 3.1."""
    release = tuple(int(piece) for piece in pandas.__version__.split(".")[:2] if piece.isdigit())
    return {} if release >= (3, 1) else {"float_precision": "round_trip"}


def _find_fault(body: memoryview, header: _Header, names: List[str]) -> Optional[DecodeError]:
    """Return the error for the first line that is no entry, or ``None``."""
    for number, line in enumerate(io.TextIOWrapper(text.open_bytes(body), "latin-1"), header.line):
        words = line.split()
        if words and (len(words) != len(names) or not all(map(_is_number, words, names, [header.field] * 3))):
            try:
                _refuse_line(number, names, line.strip().encode("latin-1"))
            except DecodeError as exc:
                return exc
    return None


def _is_number(word: str, name: str, field: str) -> bool:
    try:
        if name == "value" and field != "integer":
            float(word)
            return "_" not in word
        return -(1 << 63) <= int(word) < 1 << 63 and "_" not in word
    except ValueError:
        return False


def _refuse_line(number: int, names: List[str], content: bytes) -> NoReturn:
    raise DecodeError(
        "line {} of the Matrix Market file must have {}, not {!r}".format(
            number, " and ".join(names) if len(names) < 3 else "row, column and value", content[:60].decode("latin-1")
        ),
        details={"line": number},
    )


def _column_names(others: Sequence[Part], columns: int) -> List[str]:
    """Return the names: one a line, or all of them in one CSV line."""
    for part in others:
        if part.name in NAME_PARTS:
            break
    else:
        return [str(place) for place in range(columns)]
    what = f"part {part.name!r}"
    names, lines = _parse_names(text.decode_text(part.data, "", what), columns)
    if len(names) != columns:
        raise DecodeError(
            f"{what} has {len(names)} names in {lines} lines, and the matrix has {columns} columns; send one name a "
            "line"
        )
    if len(set(names)) != len(names):
        seen = set()
        for name in names:
            if name in seen:
                raise DecodeError(f"{what} has the name {name!r} twice; name each column once")
            seen.add(name)
    return names


def _parse_names(content: str, columns: int) -> Tuple[List[str], int]:
    lines = [line for line in content.replace("\r\n", "\n").split("\n") if line]
    try:
        records = [record for record in csv.reader(io.StringIO(content, newline="")) if record]
    except csv.Error:
        records = []
    if len(records) == 1 and len(records[0]) == columns:
        return records[0], 1
    if len(records) == columns and all(len(record) == 1 for record in records):
        return [record[0] for record in records], columns
    return lines, len(lines)
