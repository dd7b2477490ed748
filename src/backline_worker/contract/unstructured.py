"""What ``score_unstructured`` gets and what it may return."""

from __future__ import annotations

import codecs
import re
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Union

from ..errors import DecodeError, ResultInvalid
from ..types import Answer

DEFAULT_CHARSET = "utf8"
_MAX_SHOWN = 60
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]{0,1000}")  # what can stand in Content-Type


class Query(Dict[str, str]):
    """Query parameters: a dict of each name's last value, with ``getlist`` for all of them."""

    def __init__(self, lists: Mapping[str, List[str]]) -> None:
        super().__init__({name: values[-1] for name, values in lists.items() if values})
        self._lists = {name: list(values) for name, values in lists.items()}

    def getlist(self, key: str) -> List[str]:
        """Return all values of a name, in order; an empty list for an unknown one."""
        return list(self._lists.get(key, ()))


class Input(NamedTuple):
    """``charset`` is ``None`` where the hook is not told one: a binary body that came without."""

    data: Union[str, bytes]
    mimetype: str
    charset: Optional[str]


def read_input(content_type: str, data: bytes) -> Input:
    """Return text for no mimetype, ``text/*`` and JSON, decoded; bytes for everything else.

    Raises ``DecodeError`` for text that is not in its charset, or a charset that Python does not know.
    """
    mimetype, charset = _split(content_type)
    if mimetype and not mimetype.startswith("text/") and mimetype != "application/json":
        return Input(data, mimetype, charset)
    used = charset or DEFAULT_CHARSET
    try:
        _refuse_what_is_no_charset(used)
        return Input(data.decode(used), mimetype, used)
    except UnicodeError as exc:
        raise DecodeError(
            "the body is not {} text: {}; name its charset in Content-Type, or send application/octet-stream".format(
                used, exc
            )
        ) from exc
    except (LookupError, ValueError) as exc:  # a NUL in a name is no LookupError
        raise DecodeError("unknown charset {!r} in Content-Type {!r}".format(used, content_type[:_MAX_SHOWN])) from exc


def _refuse_what_is_no_charset(name: str) -> None:
    """Raise ``LookupError`` for what Python has under the name, but no text comes in: punycode takes quadratic time."""
    if name != DEFAULT_CHARSET:
        from ..codecs.text import NOT_CHARSETS

        if codecs.lookup(name).name.replace("-", "_") in NOT_CHARSETS:
            raise LookupError(name)


def write_result(result: Any) -> Answer:
    """Return the answer for ``data`` or ``(data, {"mimetype": ..., "charset": ...})``; raises ``ResultInvalid``."""
    data, options = _take_apart(result)
    mimetype, charset = options.get("mimetype"), options.get("charset")
    for name, value in (("mimetype", mimetype), ("charset", charset)):
        if value is not None and (not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value)):
            raise ResultInvalid("score_unstructured returned {} {!r:.200}; expected a plain text".format(name, value))
    if data is None:
        data = ""
    if isinstance(data, str):
        charset = charset or DEFAULT_CHARSET
        return Answer(_content_type(mimetype or "text/plain", charset), _encoded(data, charset))
    if isinstance(data, (bytes, bytearray, memoryview)):
        return Answer(_content_type(mimetype or "application/octet-stream", charset), bytes(data))
    raise ResultInvalid(
        "score_unstructured returned {}; expected str, bytes or None, or a pair of these and a dict with mimetype and "
        "charset".format(type(data).__name__)
    )


def _take_apart(result: Any) -> Any:
    if not isinstance(result, tuple):
        return result, {}
    if len(result) == 2 and (result[1] is None or isinstance(result[1], Mapping)):
        return result[0], result[1] or {}
    raise ResultInvalid(
        "score_unstructured returned a tuple of {}; expected (data, {{'mimetype': ..., 'charset': ...}})".format(
            ", ".join(type(item).__name__ for item in result) or "nothing"
        )
    )


def _encoded(data: str, charset: str) -> bytes:
    try:
        codecs.lookup(charset)
        return data.encode(charset)
    except UnicodeError as exc:
        raise ResultInvalid("score_unstructured returned text that is not {}: {}".format(charset, exc)) from exc
    except (LookupError, ValueError) as exc:
        raise ResultInvalid("score_unstructured returned the unknown charset {!r}".format(charset)) from exc


def _content_type(mimetype: str, charset: Optional[str]) -> str:
    if charset is None or "charset=" in mimetype.lower():
        return mimetype
    # The contract says utf8 to hooks; on the wire the charset has its registered name.
    return "{}; charset={}".format(mimetype, "utf-8" if charset.lower() == "utf8" else charset)


def _split(content_type: str) -> Any:
    mimetype, _, parameters = content_type.partition(";")
    charset = None
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip():
            charset = value.strip().strip("\"'")
    return mimetype.strip().lower(), charset or None
