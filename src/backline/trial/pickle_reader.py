"""Reads pickles without unpickling them: which globals they name, and what they would be called with.

The opcodes are taken from ``pickletools`` and run on a stack of stand-ins: nothing is imported and nothing is called.
Two kinds of file need more than the opcodes: joblib leaves the bytes of arrays in the middle of a pickle, and says in
the pickle how many; and numpy keeps arrays of objects as a pickle behind its own header.
"""

from __future__ import annotations

import dataclasses
import io
import math
import pickletools
import re
from collections.abc import Iterator
from typing import IO, Any, Final

_MOST_OPCODES: Final = 50_000_000
_MOST_DEPTH: Final = 50  # of pickles in pickles
_JOBLIB_ARRAY: Final = "joblib.numpy_pickle.NumpyArrayWrapper"
_DTYPE: Final = re.compile(r"[<>|=]?([a-zA-Z?])(\d*)")
_MARK: Final = object()


class NotReadable(Exception):
    """The stream is no pickle from some byte on, so what it names is not known."""


@dataclasses.dataclass(frozen=True, slots=True)
class Global:
    """A name that unpickling would import."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclasses.dataclass(slots=True)
class Made:
    """What a call would have made; ``state`` is what would have been put into it."""

    function: Any
    arguments: Any
    state: Any = None


@dataclasses.dataclass(slots=True)
class Pickle:
    """What was found in a stream of pickles."""

    globals: dict[Global, int] = dataclasses.field(default_factory=dict)
    """Each global, with how often it is named."""
    called: set[Global] = dataclasses.field(default_factory=set)
    """Those that are called, or of which an object is made."""
    states: list[tuple[Global, dict[Any, Any]]] = dataclasses.field(default_factory=list)
    """The class of each object with a ``dict`` of attributes, and that."""


def read_pickles(stream: IO[bytes], found: Pickle, *, most: int | None = None) -> int:
    """Read one pickle after another until the stream ends, or ``most`` of them; return how many there were.

    Raises ``NotReadable`` with the place where it ends to be one; ``found`` has what comes before.
    """
    count = 0
    while most is None or count < most:
        if not stream.read(1):
            break
        stream.seek(-1, io.SEEK_CUR)
        _Reader(stream, found, 0).read()
        count += 1
    return count


class _Reader:
    """One pickle."""

    def __init__(self, stream: IO[bytes], found: Pickle, depth: int) -> None:
        if depth > _MOST_DEPTH:
            raise NotReadable(f"pickles lie {_MOST_DEPTH} deep in each other")
        self._stream = stream
        self._found = found
        self._depth = depth
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def read(self) -> None:
        place = self._stream.tell()
        count = 0
        try:
            for opcode, argument, position in pickletools.genops(self._stream):
                place = position or place
                count += 1
                if count > _MOST_OPCODES:
                    raise NotReadable(f"more than {_MOST_OPCODES} opcodes")
                self._step(opcode.name, argument)
        except NotReadable:
            raise
        except Exception as exc:
            raise NotReadable(f"no pickle from byte {place} on: {exc}") from exc

    def _step(self, name: str, argument: Any) -> None:  # noqa: C901, PLR0912, PLR0915  (one case for each opcode)
        stack = self._stack
        if name in ("PROTO", "FRAME", "STOP"):
            return
        if name == "MARK":
            stack.append(_MARK)
        elif name in ("GLOBAL", "INST"):
            module, _, attribute = argument.partition(" ")
            found = self._name(module, attribute)
            stack.append(found if name == "GLOBAL" else self._call(found, self._to_mark()))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            if not isinstance(attribute, str) or not isinstance(module, str):
                raise NotReadable("a global whose name is made while it is unpickled")
            stack.append(self._name(module, attribute))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = stack.pop(), stack.pop()
            stack.append(self._call(function, arguments))
        elif name == "NEWOBJ_EX":
            _, arguments, function = stack.pop(), stack.pop(), stack.pop()
            stack.append(self._call(function, arguments))
        elif name == "OBJ":
            items = self._to_mark()
            stack.append(self._call(items[0], items[1:]))
        elif name == "BUILD":
            self._build(stack.pop())
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            self._to_mark()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name in ("EMPTY_LIST", "EMPTY_SET"):
            stack.append([])
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name in ("APPEND", "APPENDS", "ADDITEMS"):
            items = [stack.pop()] if name == "APPEND" else self._to_mark()
            if isinstance(stack[-1], list):
                stack[-1].extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else self._to_mark()
            self._set_items(stack[-1], items)
        elif name in ("LIST", "TUPLE", "FROZENSET"):
            items = self._to_mark()
            stack.append(tuple(items) if name == "TUPLE" else items)
        elif name == "DICT":
            made: dict[Any, Any] = {}
            self._set_items(made, self._to_mark())
            stack.append(made)
        elif name == "EMPTY_TUPLE":
            stack.append(())
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            size = int(name[-1])
            stack[-size:] = [tuple(stack[-size:])]
        elif name in ("NONE", "NEWTRUE", "NEWFALSE"):
            stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
        elif name in ("BINPERSID", "READONLY_BUFFER"):
            stack.append(Made(name, stack.pop()))
        elif name in ("PERSID", "NEXT_BUFFER", "EXT1", "EXT2", "EXT4"):
            if name.startswith("EXT"):
                raise NotReadable("it uses the extension registry, which says elsewhere what it names")
            stack.append(Made(name, argument))
        else:  # the constants
            stack.append(argument)

    def _name(self, module: str, attribute: str) -> Global:
        found = Global(module, attribute)
        self._found.globals[found] = self._found.globals.get(found, 0) + 1
        return found

    def _call(self, function: Any, arguments: Any) -> Made:
        if isinstance(function, Global):
            self._found.called.add(function)
            if str(function) == "copyreg._reconstructor" and isinstance(arguments, tuple | list) and arguments:
                return self._call(arguments[0], ())
        return Made(function, arguments)

    def _build(self, state: Any) -> None:
        target = self._stack[-1] if self._stack else None
        if not isinstance(target, Made):
            return
        target.state = state
        if isinstance(target.function, Global) and isinstance(state, dict):
            if str(target.function) == _JOBLIB_ARRAY:
                self._skip_array(state)
            else:
                self._found.states.append((target.function, state))

    def _skip_array(self, state: dict[Any, Any]) -> None:
        """Pass over the bytes of an array that joblib has left behind the object that describes it."""
        kind, itemsize = _dtype(state.get("dtype"))
        shape = state.get("shape")
        if not isinstance(shape, tuple) or not all(isinstance(size, int) and size >= 0 for size in shape):
            raise NotReadable("an array of joblib without a shape")
        if kind == "O":
            _Reader(self._stream, self._found, self._depth + 1).read()
            return
        if state.get("numpy_array_alignment_bytes") is not None:
            padding = self._stream.read(1)
            self._stream.seek(padding[0] if padding else 0, io.SEEK_CUR)
        self._stream.seek(math.prod(shape) * itemsize, io.SEEK_CUR)

    def _to_mark(self) -> list[Any]:
        for place in range(len(self._stack) - 1, -1, -1):
            if self._stack[place] is _MARK:
                items = self._stack[place + 1 :]
                del self._stack[place:]
                return items
        raise NotReadable("a mark is missing")

    def _set_items(self, target: Any, items: list[Any]) -> None:
        if isinstance(target, dict):
            for key, value in zip(items[::2], items[1::2], strict=False):
                if isinstance(key, str | int | float | bytes | bool | None):
                    target[key] = value


def _dtype(dtype: Any) -> tuple[str, int]:
    text = dtype.arguments[0] if isinstance(dtype, Made) and isinstance(dtype.arguments, tuple) else None
    match = _DTYPE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise NotReadable(f"an array of joblib of unknown type {text!r}")
    size = int(match[2]) if match[2] else 1
    return match[1], size * 4 if match[1] == "U" else size


def numpy_pickle(stream: IO[bytes]) -> bool:
    """Stand behind the header of an ``.npy`` file; return whether a pickle follows. Raises ``NotReadable``."""
    head = stream.read(8)
    if len(head) < 8 or head[:6] != b"\x93NUMPY":
        raise NotReadable("no header of numpy")
    width = 2 if head[6] == 1 else 4
    header = stream.read(int.from_bytes(stream.read(width), "little"))
    return b"|O" in header or b"'O'" in header


def named_versions(found: Pickle) -> Iterator[tuple[str, str]]:
    """Yield library and version wherever an object says with which it was made: scikit-learn's do."""
    seen = set()
    for owner, state in found.states:
        version = state.get("_sklearn_version")
        if isinstance(version, str) and (owner.module.partition(".")[0], version) not in seen:
            seen.add((owner.module.partition(".")[0], version))
            yield "scikit-learn", version
