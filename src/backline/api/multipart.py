"""Reads ``multipart/form-data`` as a stream: part contents go to the payload sink, what is around them is checked.

The format: RFC 2046 section 5.1 and RFC 7578. ``python_multipart`` finds delimiters and headers; this module gives it
limits and refuses what it would let pass: text before the first delimiter or after the last, a body that ends early, a
part without a name, two parts named ``X``. Memory does not depend on the length of the body or on the number of parts
sent; work is linear in the bytes.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from backline.errors import MalformedMultipart

if TYPE_CHECKING:
    from backline.runtime.payload import PayloadSink

DATA_PART: Final = "X"
MAX_BOUNDARY_BYTES: Final = 200  # the standard allows 70
MAX_NAME_LENGTH: Final = 256
MAX_HEADERS_OF_A_PART: Final = 32
_MEND: Final = "use an HTTP client's own multipart support (curl -F X=@data.csv), or send the rows as the body itself"
# Possessive throughout: a header that does not fit fails in linear time.
_PARAMETER: Final = re.compile(
    r"""\s*+;\s*+(?:([!#$%&'*+.^_`|~0-9A-Za-z-]++)\s*+=\s*+(?:"((?:[^"\\]|\\.)*+)"|([^";\s]*+))\s*+)?+(?=;|$)""",
    re.DOTALL,
)
_ESCAPED: Final = re.compile(r'\\(["\\])')
_WHITE_SPACE: Final = b" \t\r\n"

# The library logs a warning, with bytes from the body, before each exception that it raises. The exception is answered
# and counted; a log line for each would let any client fill the log.
_SILENT: Final = logging.Logger("backline.multipart", level=logging.CRITICAL + 1)  # noqa: LOG001 - in no hierarchy


class PartRecord(NamedTuple):
    """Where one part lies in the payload, and what its headers say; a tuple because there is one for each request.

    ``content_type`` is the raw header value, ``""`` when none was sent. ``offset`` and ``length`` are in bytes.
    """

    name: str
    content_type: str
    filename: str | None
    offset: int
    length: int


def boundary_of(content_type: str) -> bytes | None:
    """Return the boundary when ``content_type`` is ``multipart/form-data``, and ``None`` when it is anything else.

    Raises ``MalformedMultipart`` when the boundary is missing, given twice or not usable.
    """
    media_type, separator, rest = content_type.partition(";")
    if media_type.strip().lower() != "multipart/form-data":
        return None
    parameters = parse_parameters(separator + rest, "the Content-Type header")
    boundary = parameters.get("boundary", "")
    if not boundary:
        raise MalformedMultipart(
            "the Content-Type is multipart/form-data but names no boundary; do not set this header yourself: "
            "the HTTP client writes it, with the boundary, when it builds the body"
        )
    if (
        len(boundary) > MAX_BOUNDARY_BYTES
        or not boundary.isascii()
        or not boundary.isprintable()
        or boundary[-1] == " "
    ):
        raise MalformedMultipart(
            f"the boundary in the Content-Type header cannot be used: {boundary[:40]!r}; "
            "it has to be 1 to 70 printable ASCII characters, not ending in a space"
        )
    return boundary.encode("ascii")


def parse_parameters(text: str, where: str) -> dict[str, str]:
    """Return the ``; name=value`` parameters of a header, names in lower case; ``where`` is for the message.

    A backslash escapes only a quote or a backslash, as browsers send Windows paths unescaped.
    Raises ``MalformedMultipart`` on anything else than parameters, and on one given twice.
    """
    parameters: dict[str, str] = {}
    position = 0
    text = text.rstrip()
    while position < len(text):
        match = _PARAMETER.match(text, position)
        if match is None:
            raise MalformedMultipart(f"{where} cannot be read at {text[position : position + 40]!r}; {_MEND}")
        position = match.end()
        name, quoted, token = match.groups()
        if name is None:
            continue  # an empty parameter, as in a trailing semicolon
        name = name.lower()
        if name in parameters:
            raise MalformedMultipart(f"{where} gives {name!r} twice; {_MEND}")
        parameters[name] = token if quoted is None else _ESCAPED.sub(r"\1", quoted)
    return parameters


class MultipartReader:
    """Takes the body piece by piece, writes the contents to ``sink`` and returns where they lie.

    Does not own the sink. ``feed`` and ``finish`` raise ``MalformedMultipart``; after that only the sink's ``abort`` is
    left to call.
    """

    def __init__(self, boundary: bytes, sink: PayloadSink, *, max_parts: int, max_part_headers: int) -> None:
        self._sink = sink
        self._max_parts = max_parts
        self._max_part_headers = max_part_headers
        self._parts: list[PartRecord] = []
        self._opening = b"--" + boundary
        self._closing = b"\r\n--" + boundary + b"--"
        self._start = b""  # what came before the first delimiter could be told
        self._started = False
        self._ended = False
        self._position = 0  # bytes given to the parser before the current piece
        self._tail = b""  # the end of the previous pieces, as long as the closing delimiter
        self._number = 0  # of the current part, from 1
        self._in_headers = False
        self._header_bytes = 0
        self._field = bytearray()  # not bytes: headers can come byte by byte, and must not cost a copy for each
        self._value = bytearray()
        self._headers: dict[str, bytes] = {}
        self._name = ""
        self._filename: str | None = None
        self._offset = 0
        self._content_start = b""  # the content's first bytes, until they can be told from a delimiter
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
            max_header_count=MAX_HEADERS_OF_A_PART,
            max_header_size=max_part_headers,
        )
        self._parser.logger = _SILENT

    def feed(self, data: bytes) -> None:
        """Take the next piece of the body."""
        if self._ended:
            self._check_epilogue(data)
            return
        if not self._started:
            opening = self._opening
            data = (self._start + data).lstrip(b"\r\n")
            if not data.startswith(opening[: len(data)]):
                raise MalformedMultipart(
                    f"the multipart body starts with {data[:40]!r} where its first delimiter {opening[:80]!r} was "
                    f"expected; the boundary in the Content-Type header has to be the one used in the body. {_MEND}"
                )
            if len(data) < len(opening):
                self._start = data
                return
            self._started = True
        self._parse(data)

    def finish(self) -> list[PartRecord]:
        """Return the parts, in the body's order; call it when the body has ended."""
        if self._ended:
            return self._parts
        if self._number == 0:
            where = "before its first part"
        elif self._in_headers:
            where = f"in the headers of part {self._number}"
        else:
            where = f"in the content of part {self._number} ({self._name!r})"
        raise MalformedMultipart(
            f"the multipart body ends {where}, without its closing delimiter {self._closing[2:82]!r}; was it cut off, "
            "or has a part a line that starts with the boundary?"
        )

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.write(data)
        except FormParserError as exc:
            self._refuse(exc)
        if self._ended:
            self._check_epilogue(data[self._end_in(data) :])
            return
        self._position += len(data)
        keep = len(self._closing)
        self._tail = data[-keep:] if len(data) >= keep else (self._tail + data)[-keep:]

    # What the parser calls, in the order in which it does. Views, not copies: the sink copies what it keeps.

    def _on_part_begin(self) -> None:
        self._number += 1
        if self._number > self._max_parts:
            raise MalformedMultipart(
                f"the multipart body has more than {self._max_parts} parts (--max-parts); "
                f"the rows belong in one part, named {DATA_PART!r}"
            )
        self._in_headers = True
        self._header_bytes = 0
        self._headers = {}
        self._offset = self._sink.size

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._count_header_bytes(end - start)
        self._field += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._count_header_bytes(end - start)
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        name = self._field.decode("ascii").lower()
        if name.startswith("--"):
            # A legal header name, and what a broken delimiter looks like. Refused, it also cannot hide the closing one.
            raise MalformedMultipart(f"part {self._number} has a delimiter in its headers: {name[:80]!r}; {_MEND}")
        self._count_header_bytes(len(b": \r\n"))
        self._headers[name] = bytes(self._value)
        self._field.clear()
        self._value.clear()

    def _on_headers_finished(self) -> None:
        self._in_headers = False
        disposition = _text(self._headers.get("content-disposition", b""))
        kind, separator, rest = disposition.partition(";")
        if kind.strip().lower() != "form-data":
            found = repr(disposition[:80]) if disposition else "none"
            raise MalformedMultipart(
                f"part {self._number} of the multipart body needs the header "
                f'Content-Disposition: form-data; name="{DATA_PART}", and has {found}; {_MEND}'
            )
        parameters = parse_parameters(separator + rest, f"the Content-Disposition of part {self._number}")
        name = _parameter(parameters, "name")
        if name is None:
            raise MalformedMultipart(
                f"part {self._number} of the multipart body has no name; "
                f'the rows belong in a part with name="{DATA_PART}"'
            )
        if len(name) > MAX_NAME_LENGTH:
            raise MalformedMultipart(
                f"the name of part {self._number} has {len(name)} characters; at most {MAX_NAME_LENGTH} are taken"
            )
        if name == DATA_PART and any(part.name == DATA_PART for part in self._parts):
            raise MalformedMultipart(
                f"part {self._number} is the second one named {DATA_PART!r}; send all rows in one part, "
                "or one request for each file"
            )
        encoding = _text(self._headers.get("content-transfer-encoding", b"")).strip().lower()
        if encoding not in {"", "binary", "8bit", "7bit"}:
            # RFC 7578 section 4.7 takes it out of the format; passed over, the text of a base64 part would be scored.
            raise MalformedMultipart(
                f"part {self._number} ({name!r}) is sent with Content-Transfer-Encoding: {encoding[:40]}; "
                "send the content as it is (binary)"
            )
        self._name = name
        self._filename = _parameter(parameters, "filename")
        self._content_start = b""

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        missing = len(self._opening) - len(self._content_start)
        if missing > 0:
            self._content_start += data[start : min(start + missing, end)]
            if self._content_start == self._opening:
                # The parser takes it for content, as the line end before it belongs to the headers; others take it for
                # a delimiter. RFC 2046 forbids it, and two readings of one request are one too many.
                raise MalformedMultipart(
                    f"the content of part {self._number} ({self._name!r}) starts with the boundary; "
                    f"an empty part needs an empty line before the next delimiter. {_MEND}"
                )
        self._sink.write(memoryview(data)[start:end])

    def _on_part_end(self) -> None:
        content_type = _text(self._headers.get("content-type", b"")).strip()
        length = self._sink.size - self._offset
        self._parts.append(PartRecord(self._name, content_type, self._filename, self._offset, length))

    def _on_end(self) -> None:
        self._ended = True

    def _count_header_bytes(self, count: int) -> None:
        self._header_bytes += count
        if self._header_bytes > self._max_part_headers:
            self._refuse_headers()

    def _end_in(self, data: bytes) -> int:
        """Return where the closing delimiter ends in ``data``; the parser reports that it was there, not where.

        It is the first one, as none can stand inside a part: the parser would have seen it, or we have refused it in
        headers and at the start of a content. It may have begun in earlier pieces.
        """
        closing = self._closing
        across = self._tail + data[: len(closing)]
        if self._position == 0:
            if data.startswith(closing[2:]):
                return len(closing) - 2  # no parts at all
            across = b""
        at = across.find(closing)
        if at >= 0:
            return at + len(closing) - len(self._tail)
        if self._number == 0:
            return across.find(closing[2:]) + len(closing) - 2 - len(self._tail)
        return data.find(closing) + len(closing)

    def _check_epilogue(self, data: bytes) -> None:
        rest = data.strip(_WHITE_SPACE)
        if rest:
            raise MalformedMultipart(
                f"the multipart body goes on after its closing delimiter, with {rest[:40]!r}; "
                f"nothing may follow it. {_MEND}"
            )

    def _refuse(self, exc: FormParserError) -> NoReturn:
        text = str(exc)
        if text.startswith("Maximum header size"):
            self._refuse_headers()
        offset = self._position + max(getattr(exc, "offset", 0), 0)
        place = f"in the headers of part {self._number}" if self._in_headers else "at a delimiter"
        raise MalformedMultipart(
            f"the multipart body is malformed {place}, about byte {offset}: {text[:200]}; {_MEND}"
        ) from exc

    def _refuse_headers(self) -> NoReturn:
        raise MalformedMultipart(
            f"the headers of part {self._number} are over {self._max_part_headers} bytes (--max-part-headers); "
            "a part needs only Content-Disposition and Content-Type"
        )


def _text(value: bytes) -> str:
    """Decode a header: UTF-8, as RFC 7578 asks and everybody sends, else Latin-1, which never fails."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _parameter(parameters: dict[str, str], name: str) -> str | None:
    """Return ``name``, or ``name*`` decoded as RFC 8187 says where there is only that.

    RFC 7578 forbids the starred form, old clients send it alone for names beyond ASCII. Where both are there the plain
    one counts, so that no two readers of one request see different names.
    """
    plain = parameters.get(name)
    if plain is not None:
        return plain
    starred = parameters.get(name + "*")
    if starred is None:
        return None
    charset, _, rest = starred.partition("'")
    _language, quote, encoded = rest.partition("'")
    try:
        if quote and charset.lower() in {"utf-8", "iso-8859-1"}:
            return unquote_to_bytes(encoded).decode(charset)
    except UnicodeDecodeError:
        pass
    raise MalformedMultipart(f"the parameter {name}* of a part cannot be read: {starred[:80]!r}; {_MEND}")
