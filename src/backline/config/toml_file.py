"""Reads ``backline.toml``: values by dotted name, each with its line; what is not a setting is refused by name."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backline.config.option import Option
from backline.config.problems import SettingError, ValueProblem, did_you_mean

FILE_NAME = "backline.toml"

_HEADER = re.compile(r"\s*\[\s*([A-Za-z0-9_.\"'-]+)\s*\]")
_KEY = re.compile(r"\s*([A-Za-z0-9_\"'.-]+)\s*=")


def read_toml(path: Path, options: Mapping[str, Option]) -> dict[str, tuple[Any, str]]:
    """Return ``{"section.key": (value, "backline.toml:line")}``; ``{}`` where there is no such file.

    Raises ``SettingError`` for broken TOML, an unknown section or key, or a value of the wrong type.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        tables = tomllib.loads(text)
    except FileNotFoundError:
        return {}
    except OSError as exc:
        reason = exc.strerror or type(exc).__name__
        raise SettingError(f"cannot be read: {reason}", where=str(path), mend="check its permissions") from exc
    except UnicodeDecodeError as exc:
        raise SettingError(f"is not UTF-8 (byte {exc.start})", where=str(path), mend="save it as UTF-8 text") from exc
    except tomllib.TOMLDecodeError as exc:
        raise _broken(path, str(exc)) from exc
    lines = _lines(text)
    return dict(_settings(path, tables, options, lines))


def _settings(
    path: Path, tables: Mapping[str, Any], options: Mapping[str, Option], lines: Mapping[str, int]
) -> list[tuple[str, tuple[Any, str]]]:
    sections = list(dict.fromkeys(option.section for option in options.values()))
    found = []
    for section, table in tables.items():
        at = f"{path}:{lines[section]}" if section in lines else str(path)
        if section not in sections:
            raise _unknown_section(section, table, at, options, sections)
        if not isinstance(table, dict):
            raise SettingError(f"{section} is a section, not a key", where=at, mend=f"write [{section}] above its keys")
        for key, value in table.items():
            dotted = f"{section}.{key}"
            at = f"{path}:{lines[dotted]}" if dotted in lines else str(path)
            option = options.get(dotted)
            if option is None or not option.in_file:
                raise _unknown_key(section, key, at, options, known=option is not None)
            try:
                parsed = option.kind.from_toml(value)
            except ValueProblem as problem:
                raise SettingError(f"{dotted}: {problem.what}", where=at, mend=problem.mend) from problem
            found.append((dotted, (parsed, at)))
    return found


def _unknown_section(
    section: str, table: Any, at: str, options: Mapping[str, Option], sections: list[str]
) -> SettingError:
    if not isinstance(table, dict):
        homes = [f"[{option.section}] {option.name}" for option in options.values() if option.name == section]
        if homes:
            return SettingError(
                f"the key {section} stands outside a section", where=at, mend=f"put it under {homes[0]}"
            )
    mend = did_you_mean(section, sections, otherwise=f"the sections are {', '.join(sections)}")
    return SettingError(f"unknown {'section' if isinstance(table, dict) else 'key'} {section}", where=at, mend=mend)


def _unknown_key(section: str, key: str, at: str, options: Mapping[str, Option], *, known: bool) -> SettingError:
    if known:
        return SettingError(f"{section}.{key} cannot be set in this file", where=at, mend="remove it")
    elsewhere = [option.dotted for option in options.values() if option.name == key and option.in_file]
    if elsewhere:
        return SettingError(f"unknown key {section}.{key}", where=at, mend=f"did you mean {' or '.join(elsewhere)}?")
    keys = [option.name for option in options.values() if option.section == section and option.in_file]
    # Flags are what people know by heart: `workers.workers` means the setting behind --workers.
    by_flag = [
        option.dotted for option in options.values() if option.in_file and f"--{key.replace('_', '-')}" in option.flags
    ]
    mend = (
        f"did you mean {' or '.join(by_flag)}?"
        if by_flag
        else did_you_mean(key, keys, otherwise=f"the keys of [{section}] are {', '.join(keys)}")
    )
    return SettingError(f"unknown key {section}.{key}", where=at, mend=mend)


def _broken(path: Path, message: str) -> SettingError:
    match = re.search(r"^(.*) \(at (?:line (\d+), column (\d+)|end of document)\)$", message)
    if match is None:
        return SettingError(f"broken TOML: {message}", where=str(path), mend="mend the file there")
    what, line, column = match.groups()
    at = f"{path}:{line}:{column}" if line else f"{path} (at its end)"
    mend = "put quotes around text" if "Invalid value" in what else "mend the TOML there"
    return SettingError(f"broken TOML: {what}", where=at, mend=mend)


def _lines(text: str) -> dict[str, int]:
    """Return the line of each section header and key.

    The parser tells no positions. This reads headers and ``key =`` at the start of a line, which is how settings are
    written; a key in an inline table gets no line, and its message names the file alone.
    """
    lines: dict[str, int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            section = header[1].strip("\"'")
            lines.setdefault(section, number)
        elif key := _KEY.match(line):
            name = key[1].strip("\"'")
            dotted = f"{section}.{name}" if section else name
            lines.setdefault(dotted, number)
            lines.setdefault(dotted.partition(".")[0], number)
    return lines
