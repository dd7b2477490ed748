"""Reads a YAML file of the model folder: plain values, the line of each, and errors that say where and how to mend.

YAML turns bare words into other types: ``yes`` into true, ``007`` into 7, ``1:30`` into 90, ``2024-01-01`` into a date.
Where the contract says text, what the author wrote is kept; ``is_text`` says where that is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backline.config.problems import SettingError

if TYPE_CHECKING:
    import yaml

YamlPath = tuple[str | int, ...]
IsText = Callable[[YamlPath, Mapping[str, str]], bool]
"""Called with the path of a scalar and its mapping's plain scalars; says whether it is text whatever it looks like."""

_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = {_TAG + name for name in ("null", "bool", "int", "float", "str", "seq", "map")}
_MENDS = (
    ("\\t", "indent with blanks: YAML allows no tabs there"),
    ("mapping values are not allowed", "put quotes around a value that holds ': ', or mend the indentation"),
    ("could not find expected ':'", "put ': ' between key and value, or quotes around a value of several words"),
    ("expected ',' or ']'", "close the list with ], or put quotes around a value that starts with ["),
    ("expected ',' or '}'", "close the mapping with }, or put quotes around a value that starts with {"),
    ("expected <block end>", "give keys of one mapping, and items of one list, the same indentation"),
    ("undefined alias", "put quotes around a value that starts with *"),
    ("cannot start any token", "put quotes around a value that starts with @, ` or %"),
    ("while scanning a quoted scalar", "close the quotes"),
    ("could not determine a constructor", "write the value without a tag (!...)"),
    ("expected a single document", "keep one document in the file: remove the --- lines"),
    ("found duplicate key", "keep one of the two"),
)


@dataclasses.dataclass(frozen=True, slots=True)
class YamlFile:
    """A parsed file: plain JSON-like values (``None`` for an empty file), and the line of each path, from 1."""

    path: Path
    value: Any
    lines: Mapping[str, int]

    def where(self, path: str) -> str:
        """Return ``file:line`` for a path such as ``inferenceModel.classLabels[0]``, or the nearest above it."""
        while path:
            if path in self.lines:
                return f"{self.path}:{self.lines[path]}"
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return str(self.path)


def read_yaml(path: Path, *, is_text: IsText = lambda path, siblings: False, usage: bool = False) -> YamlFile:
    """Read and parse ``path``. Raises ``SettingError``; ``usage`` is its flag for a file that cannot be read at all."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as exc:
        reason = exc.strerror or type(exc).__name__
        raise SettingError(
            f"cannot be read: {reason}", where=str(path), mend="check the path and its permissions", usage=usage
        ) from exc
    except UnicodeDecodeError as exc:
        raise SettingError(
            f"is not UTF-8 (byte {exc.start})", where=str(path), mend="save the file as UTF-8 text"
        ) from exc
    return _parse(path, text, is_text)


def _parse(path: Path, text: str, is_text: IsText) -> YamlFile:
    import yaml

    lines: dict[str, int] = {}
    loader = yaml.SafeLoader("")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return YamlFile(path, None, lines)
        _prepare(node, (), {}, is_text, lines, set())
        value = loader.construct_document(node)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        at = f":{mark.line + 1}:{mark.column + 1}" if mark is not None else ""
        what = exc.problem or exc.context or "broken YAML"
        hints = f"{exc.context} {exc.problem}"
        mend = next((mend for sign, mend in _MENDS if sign in hints), "mend the YAML there")
        raise SettingError(what, where=f"{path}{at}", mend=mend) from exc
    except yaml.reader.ReaderError as exc:
        line = text.count("\n", 0, exc.position) + 1
        raise SettingError(
            f"a character that YAML does not allow: {exc.character!r}", where=f"{path}:{line}", mend="remove it"
        ) from exc
    except (yaml.YAMLError, ValueError) as exc:
        # ValueError: the constructor's own int() and float() on text that only looks like a number.
        raise SettingError(f"broken YAML: {exc}", where=str(path), mend="put quotes around text values") from exc
    finally:
        loader.dispose()
    return YamlFile(path, value, lines)


def _prepare(
    node: yaml.Node,
    path: YamlPath,
    siblings: Mapping[str, str],
    is_text: IsText,
    lines: dict[str, int],
    above: set[int],
) -> None:
    """Make text of what is text, note the lines, and refuse what is not plain JSON-like data."""
    import yaml

    lines.setdefault(dotted(path), node.start_mark.line + 1)
    is_value = isinstance(node, yaml.ScalarNode) and node.tag != _TAG + "null"
    if is_value and (node.tag == _TAG + "timestamp" or is_text(path, siblings)):
        node.tag = _TAG + "str"
    if node.tag not in _PLAIN_TAGS and not node.tag.startswith("!"):
        raise yaml.composer.ComposerError(
            None, None, f"could not determine a constructor for the tag {node.tag!r}", node.start_mark
        )
    if id(node) in above:
        raise yaml.composer.ComposerError(None, None, "a value that contains itself", node.start_mark)
    if isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            _prepare(item, (*path, position), {}, is_text, lines, above | {id(node)})
    elif isinstance(node, yaml.MappingNode):
        _prepare_mapping(node, path, is_text, lines, above | {id(node)})


def _prepare_mapping(
    node: yaml.MappingNode, path: YamlPath, is_text: IsText, lines: dict[str, int], above: set[int]
) -> None:
    import yaml

    scalars = {
        key.value: value.value
        for key, value in node.value
        if isinstance(key, yaml.ScalarNode) and isinstance(value, yaml.ScalarNode)
    }
    seen: set[str] = set()
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise yaml.composer.ComposerError(None, None, "a key that is no plain word", key.start_mark)
        if key.tag == _TAG + "merge":
            _prepare(value, path, {}, is_text, lines, above)
            continue
        key.tag = _TAG + "str"
        if key.value in seen:
            raise yaml.composer.ComposerError(None, None, f"found duplicate key {key.value!r}", key.start_mark)
        seen.add(key.value)
        lines[dotted((*path, key.value))] = key.start_mark.line + 1
        _prepare(value, (*path, key.value), scalars, is_text, lines, above)


def dotted(path: YamlPath) -> str:
    """Return ``inferenceModel.classLabels[0]`` for ``("inferenceModel", "classLabels", 0)``."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")
