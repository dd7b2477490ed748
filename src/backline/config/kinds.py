"""The kinds of value that a setting can have: how each is read from text, from TOML, and shown.

Text is what flags and environment variables carry; TOML values already have a type, and a wrong one is refused rather
than converted, save that sizes, durations and names may be written as strings there.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shlex
import urllib.parse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from backline.config.problems import ValueProblem, did_you_mean
from backline.config.units import format_duration, format_size, parse_duration, parse_size
from backline_worker.contract.target_types import TargetType, parse_target_type

_TRUE = ("1", "true", "yes", "on", "y", "t")
_FALSE = ("0", "false", "no", "off", "n", "f")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of value. ``parse`` and ``from_toml`` raise ``ValueProblem``.

    ``name`` reads after "expected": "a whole number". ``metavar`` stands for the value in help; empty for a switch.
    """

    name: str
    metavar: str
    parse: Callable[[str], Any]
    from_toml: Callable[[Any], Any]
    show: Callable[[Any], str] = str
    is_switch: bool = False
    is_list: bool = False
    is_path: bool = False
    choices: tuple[str, ...] = ()


def _wrong_type(value: Any, expected: str) -> ValueProblem:
    toml_names = {bool: "a boolean", int: "an integer", float: "a float", str: "a string", list: "an array"}
    found = toml_names.get(type(value), "a table" if isinstance(value, dict) else "a date or time")
    return ValueProblem(f"expected {expected}, found {found}", f"write {expected}")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong_type(value, "a string")
    return value


def _parse_integer(text: str) -> int:
    try:
        return int(text.strip())
    except ValueError:
        raise ValueProblem(f"{text!r} is no whole number", "give a whole number such as 4") from None


def _parse_number(text: str) -> float:
    try:
        number = float(text.strip())
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueProblem(f"{text!r} is no number", "give a number such as 0.5")
    return number


def _number_from_toml(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise _wrong_type(value, "a number")
    return float(value)


def _parse_bool(text: str) -> bool:
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueProblem(f"{text!r} is neither true nor false", "give true or false (or 1, 0, yes, no, on, off)")


def _bool_from_toml(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong_type(value, "true or false")
    return value


def _integer_from_toml(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong_type(value, "a whole number")
    return value


def _size_from_toml(value: Any) -> int:
    if isinstance(value, str):
        return parse_size(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong_type(value, 'a number of bytes, or a string such as "64 MiB"')
    return value


def _duration_from_toml(value: Any) -> float:
    if isinstance(value, str):
        return parse_duration(value)
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise _wrong_type(value, 'a number of seconds, or a string such as "10m"')
    return float(value)


def split_labels(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the labels in the words of a command line, or in one environment variable.

    One word is split at commas, or at blanks where it has none; of several words each is a label as it stands, less the
    commas around it, so that a label with blanks in it can be quoted. Raises ``ValueProblem``.
    """
    if len(texts) == 1:
        pieces = texts[0].split(",") if "," in texts[0] else texts[0].split()
    else:
        pieces = [text.strip(", ") for text in texts]
    return _checked_labels([piece.strip() for piece in pieces if piece.strip()])


def _checked_labels(labels: Sequence[str]) -> tuple[str, ...]:
    if len(labels) < 2:
        raise ValueProblem(f"{len(labels)} class label{'' if len(labels) == 1 else 's'}", "give at least two labels")
    twice = sorted({label for label in labels if labels.count(label) > 1}) if len(set(labels)) < len(labels) else []
    if twice:
        raise ValueProblem(f"the class label {twice[0]!r} is given twice", "give every label once")
    return tuple(labels)


def labels_from_lines(text: str) -> tuple[str, ...]:
    """Return the labels of a class labels file, one a line; blank lines are skipped. Raises ``ValueProblem``."""
    return _checked_labels([line.strip() for line in text.splitlines() if line.strip()])


def labels_from_values(values: Any) -> tuple[str, ...]:
    """Return the labels of a TOML or YAML list; numbers are labels too, as text. Raises ``ValueProblem``."""
    if not isinstance(values, list):
        raise _wrong_type(values, "a list of strings")
    if not all(isinstance(value, str | int) for value in values):
        raise ValueProblem("expected a list of strings, found something else in the list", "write labels as strings")
    return _checked_labels([str(value) for value in values])


def _names_from_values(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise _wrong_type(values, "a list of strings")
    return tuple(values)


def _parse_target_type(text: str) -> TargetType:
    try:
        return parse_target_type(text)
    except ValueError:
        known = [member.value for member in TargetType]
        raise ValueProblem(
            f"unknown target type {text!r}", did_you_mean(text, known, otherwise=f"give one of {', '.join(known)}")
        ) from None


def _parse_prefix(text: str) -> str:
    prefix = text.strip().strip("/")
    if not prefix:
        return ""
    if any(character in prefix for character in "?#% \t\\") or "//" in prefix or not prefix.isprintable():
        raise ValueProblem(f"{text!r} is no path", "give a plain path such as /models/churn")
    return "/" + prefix


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of ``host:port``; an IPv6 host stands in brackets. Raises ``ValueProblem``."""
    host, colon, port = text.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or "/" in text or (":" in host and not bracketed):
        raise ValueProblem(
            f"{text!r} is no address", "give host:port, such as 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080"
        )
    if not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueProblem(f"{port!r} is no port", "give a port from 0 to 65535; 0 takes any free one")
    return host.strip("[]"), int(port)


def parse_admin_address(text: str) -> str:
    """Return ``unix:PATH``, made absolute, or ``host:port``. Raises ``ValueProblem``."""
    text = text.strip()
    if text.startswith("unix:"):
        if len(text) == len("unix:"):
            raise ValueProblem("unix: names no path", "give unix:/run/backline/admin.sock")
        return "unix:" + os.path.abspath(text.removeprefix("unix:"))
    parse_address(text)
    return text


def parse_backend_url(text: str) -> str:
    """Return the URL of a backend without a slash at its end. Raises ``ValueProblem``."""
    example = "give scheme, host and port, such as http://127.0.0.1:8000 or https://llm.example.com/team"
    text = text.strip()
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise ValueProblem(f"{text!r} is no URL", example)
    try:
        parts = urllib.parse.urlsplit(text)
        port = parts.port
    except ValueError as exc:
        raise ValueProblem(f"{text!r} is no URL: {exc}", example) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueProblem(f"{text!r} is no http or https URL", example)
    if "@" in parts.netloc:
        # Not repeated: it carries a password.
        raise ValueProblem("the URL holds a user name", "leave it out; clients send their own Authorization header")
    if "?" in text or "#" in text:
        raise ValueProblem(f"{text!r} has a query or a fragment", example)
    if any(segment in (".", "..") for segment in urllib.parse.unquote(parts.path).split("/")):
        raise ValueProblem(f"{text!r} has a . or .. in its path", "write the path out")
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


def parse_command(text: str) -> tuple[str, ...]:
    """Return the words of a command line, split and unquoted as a shell does. Raises ``ValueProblem``."""
    try:
        words = tuple(shlex.split(text))
    except ValueError as exc:
        raise ValueProblem(f"{text!r} is no command: {str(exc).lower()}", "close what is open") from None
    return _checked_command(words)


def _command_from_toml(value: Any) -> tuple[str, ...]:
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return _checked_command(tuple(value))
    return parse_command(_text(value))


def _checked_command(words: tuple[str, ...]) -> tuple[str, ...]:
    if not words or not words[0].strip():
        raise ValueProblem("the command is empty", 'give a program and its arguments, such as "vllm serve MODEL"')
    return words


def _parse_json_object(text: str) -> dict[str, Any]:
    example = 'give an object, such as {"top_p": 0.9}'
    try:
        value = json.loads(text)
    except ValueError as exc:
        raise ValueProblem(f"it is no JSON: {exc}", example) from None
    if not isinstance(value, dict):
        raise ValueProblem("it is no JSON object", example)
    return value


def _json_object_from_toml(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    return _parse_json_object(_text(value))


def _show_text(value: Any) -> str:
    return value if isinstance(value, str) and value else '""' if value == "" else str(value)


TEXT = Kind(name="a string", metavar="TEXT", parse=str, from_toml=_text, show=_show_text)
PATH = Kind(
    name="a path",
    metavar="FILE",
    parse=Path,
    from_toml=lambda value: Path(_text(value)),
    is_path=True,
)
INTEGER = Kind(name="a whole number", metavar="N", parse=_parse_integer, from_toml=_integer_from_toml)
SIZE = Kind(name="a byte size", metavar="SIZE", parse=parse_size, from_toml=_size_from_toml, show=format_size)
DURATION = Kind(
    name="a duration", metavar="SECONDS", parse=parse_duration, from_toml=_duration_from_toml, show=format_duration
)
NUMBER = Kind(name="a number", metavar="N", parse=_parse_number, from_toml=_number_from_toml, show="{:g}".format)
SWITCH = Kind(
    name="true or false",
    metavar="",
    parse=_parse_bool,
    from_toml=_bool_from_toml,
    show=lambda value: "true" if value else "false",
    is_switch=True,
)
LABELS = Kind(
    name="a list of strings",
    metavar="LABEL...",
    parse=lambda text: split_labels([text]),
    from_toml=labels_from_values,
    show=lambda value: ", ".join(value) if value else "none",
    is_list=True,
)
NAMES = Kind(
    name="a list of strings",
    metavar="NAMES",
    parse=lambda text: tuple(text.replace(",", " ").split()),
    from_toml=_names_from_values,
    show=lambda value: ", ".join(value) if value else "none",
)
TARGET_TYPE = Kind(
    name="a target type",
    metavar="TYPE",
    parse=_parse_target_type,
    from_toml=lambda value: _parse_target_type(_text(value)),
    show=lambda value: str(value.value),
    choices=tuple(member.value for member in TargetType),
)
URL_PREFIX = Kind(
    name="a path",
    metavar="PATH",
    parse=_parse_prefix,
    from_toml=lambda value: _parse_prefix(_text(value)),
    show=_show_text,
)
BACKEND_URL = Kind(
    name="a URL", metavar="URL", parse=parse_backend_url, from_toml=lambda value: parse_backend_url(_text(value))
)
JSON_OBJECT = Kind(
    name="a JSON object",
    metavar="JSON",
    parse=_parse_json_object,
    from_toml=_json_object_from_toml,
    show=lambda value: json.dumps(value) if value else "none",
)
COMMAND = Kind(
    name="a command",
    metavar="COMMAND",
    parse=parse_command,
    from_toml=_command_from_toml,
    show=lambda value: shlex.join(value) if value else "none",
)
ADMIN_ADDRESS = Kind(
    name="an admin address",
    metavar="ADDRESS",
    parse=parse_admin_address,
    from_toml=lambda value: parse_admin_address(_text(value)),
)
ADDRESS = Kind(
    name="host:port",
    metavar="HOST:PORT",
    parse=parse_address,
    from_toml=lambda value: parse_address(_text(value)),
    show=lambda value: f"{value[0]}:{value[1]}",
)


def choice(*words: str) -> Kind:
    """Return the kind of one word among ``words``, in any case."""

    def parse(text: str) -> str:
        word = text.strip().lower()
        if word not in words:
            raise ValueProblem(
                f"{text!r} is none of {', '.join(words)}",
                did_you_mean(word, words, otherwise=f"give one of {', '.join(words)}"),
            )
        return word

    return Kind(
        name="one of " + ", ".join(words),
        metavar="WORD",
        parse=parse,
        from_toml=lambda value: parse(_text(value)),
        choices=words,
    )
