"""The hooks of a model folder: finding and importing ``custom.py``, checking signatures, calling.

Documented arguments go in by position, in the documented order, since folders name them as they like. What the contract
offers besides goes in by keyword, and only to hooks that take it.
"""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import inspect
import os
import sys
import traceback
from dataclasses import dataclass
from types import CodeType, ModuleType, TracebackType
from typing import Any, Callable, Dict, FrozenSet, List, Mapping, Optional, Sequence

from ..errors import HookFailed, ModelCallError, ModelLoadError, OutOfMemory, ReportedError, UserHTTPError
from .hook_loop import HookLoop
from .hook_table import HOOK_TABLE
from .shim import MODULE_NAME, CustomHTTPError

_MAX_ERROR_HEADERS = 16_384  # characters of the headers that user code puts on its error

HOOKS = tuple(HOOK_TABLE)

# Where these come from the folder itself; a copy of some package that lies in it is not the model's custom.py.
_SKIPPED_FOLDERS = frozenset({"__pycache__", "site-packages", "node_modules", "venv", "env"})

# Modules whose package on PyPI has another name; asked for most often.
_DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "bs4": "beautifulsoup4",
    "dotenv": "python-dotenv",
    "dateutil": "python-dateutil",
    "skimage": "scikit-image",
    "attr": "attrs",
    "faiss": "faiss-cpu",
    "sentence_transformers": "sentence-transformers",
    "fitz": "pymupdf",
}


@dataclass(frozen=True)
class _Hook:
    """A hook's function and what its signature says: which keywords it takes and how many positional arguments."""

    function: Callable[..., Any]
    accepts_any: bool = True
    keywords: FrozenSet[str] = frozenset()
    taken: FrozenSet[str] = frozenset()  # names that what goes by position has filled
    takes_positional: bool = True
    required_positional: int = 0

    def accepts(self, keyword: str) -> bool:
        return keyword in self.keywords or (self.accepts_any and keyword not in self.taken)


class Hooks:
    """The hooks that ``custom.py`` defines, ready to be called.

    One event loop belongs to it, made when the first coroutine comes.
    """

    def __init__(self, module: Optional[ModuleType], code_dir: str) -> None:
        """Take the hooks out of ``module``; raises ``ModelLoadError`` for one that cannot be called as documented."""
        self.code_dir = code_dir
        self._hooks: Dict[str, _Hook] = {}
        self._loop: Optional[HookLoop] = None
        for name in HOOKS:
            function = getattr(module, name, None)
            if function is not None:
                self._hooks[name] = _inspect(name, function, getattr(module, "__file__", None) or "custom.py")

    def __contains__(self, name: str) -> bool:
        return name in self._hooks

    @property
    def names(self) -> List[str]:
        """The hooks there are, in the contract's order."""
        return list(self._hooks)

    def load(self, name: str, *arguments: Any, **offered: Any) -> Any:
        """Call ``init`` or ``load_model``; whatever it raises becomes a ``ModelLoadError``."""
        try:
            return self._call(name, arguments, offered)
        except MemoryError:
            raise
        except BaseException as exc:
            problem = _import_problem(exc, self.code_dir) or "{}: {}".format(type(exc).__name__, exc)
            raise ModelLoadError(
                "could not load the model: the hook {} failed: {}".format(name, problem),
                traceback=user_traceback(exc, self.code_dir),
            ) from exc

    def call(self, name: str, *arguments: Any, **offered: Any) -> Any:
        """Call a hook within a request; raises ``HookFailed``, ``UserHTTPError`` or ``OutOfMemory``."""
        try:
            return self._call(name, arguments, offered)
        except BaseException as exc:
            raise translate(exc, name, self.code_dir) from exc

    def run(self, awaitable: Any) -> Any:
        """Run an awaitable of user code to its end and return its result."""
        return self.hook_loop().run(awaitable)

    def hook_loop(self) -> HookLoop:
        """Return the event loop of the hooks; where there is a ``chat`` hook it turns by itself."""
        if self._loop is None:
            self._loop = HookLoop(in_thread="chat" in self._hooks)
        return self._loop

    def close(self) -> None:
        """Close the event loop, if there is one; hooks cannot be called afterwards."""
        if self._loop is not None:
            self._loop.close()
            self._loop = None

    def is_async(self, name: str) -> bool:
        """Whether calling this hook runs none of its code yet: a coroutine function or an asynchronous generator."""
        function = inspect.unwrap(self._hooks[name].function)
        while isinstance(function, functools.partial):
            function = function.func
        if not inspect.isroutine(function):
            function = type(function).__call__
        return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)

    def start(self, name: str, *arguments: Any, **offered: Any) -> Any:
        """Call a hook and return what it returns, a coroutine not awaited, or raise what it raises."""
        hook = self._hooks[name]
        keywords = {key: value for key, value in offered.items() if hook.accepts(key)}
        return hook.function(*_positional(name, hook, arguments, offered, keywords), **keywords)

    def _call(self, name: str, arguments: Sequence[Any], offered: Mapping[str, Any]) -> Any:
        result = self.start(name, *arguments, **offered)
        return self.run(result) if inspect.isawaitable(result) else result


def _positional(
    name: str, hook: _Hook, arguments: Sequence[Any], offered: Mapping[str, Any], keywords: Dict[str, Any]
) -> Sequence[Any]:
    """Return the positional arguments: what is offered by keyword may be a further one, under another name."""
    documented = len(HOOK_TABLE[name].arguments)
    if hook.required_positional > documented and name in ("init", "score_unstructured"):
        further = HOOK_TABLE[name].offered[0]
        if further in offered and further not in hook.keywords:
            keywords.pop(further, None)
            return [*arguments, offered[further]]
    if name == "get_supported_llm_models" and not hook.takes_positional:
        return ()
    return arguments


def _inspect(name: str, function: Any, file: str) -> _Hook:
    if not callable(function):
        raise ModelLoadError(
            "{}: {} is {}; a hook has to be a function".format(os.path.basename(file), name, type(function).__name__)
        )
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # made in C: takes whatever it takes
        return _Hook(function)
    parameters = list(signature.parameters.values())
    positional = [item for item in parameters if item.kind in (item.POSITIONAL_ONLY, item.POSITIONAL_OR_KEYWORD)]
    documented, offered = HOOK_TABLE[name].arguments, HOOK_TABLE[name].offered
    taken = frozenset(item.name for item in positional[: len(documented)])
    by_name = [item.name for item in parameters if item.kind in (item.POSITIONAL_OR_KEYWORD, item.KEYWORD_ONLY)]
    hook = _Hook(
        function=function,
        accepts_any=any(item.kind is item.VAR_KEYWORD for item in parameters),
        keywords=frozenset(by_name) - taken,
        taken=taken,
        takes_positional=bool(positional) or any(item.kind is item.VAR_POSITIONAL for item in parameters),
        required_positional=sum(item.default is item.empty for item in positional),
    )
    keywords: Dict[str, Any] = {key: None for key in offered if hook.accepts(key)}
    arguments = _positional(name, hook, [None] * len(documented), dict.fromkeys(offered), keywords)
    try:
        signature.bind(*arguments, **keywords)
    except TypeError as exc:
        passed = "{} by position".format(" and ".join(documented)) if documented else "nothing by position"
        if offered:
            passed += ", and {} by keyword to hooks that take them".format(", ".join(offered))
        mended = "def {}({})".format(name, ", ".join([*documented, "**kwargs"] if offered else documented))
        raise ModelLoadError(
            "{}: {}{} cannot be called: {}. Backline passes {}; change the hook to {}".format(
                _location(function, file), name, signature, exc, passed, mended
            )
        ) from None
    return hook


def _location(function: Any, file: str) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is None:
        return os.path.basename(file)
    return "{}:{}".format(os.path.basename(code.co_filename), code.co_firstlineno)


def find_custom(code_dir: str) -> Optional[str]:
    """Return the path of ``custom.py``, or ``None``.

    It lies in the model folder itself. Where it does not, one in a subfolder is taken; several are an error rather than
    a guess. Raises ``ModelLoadError``.
    """
    beside = os.path.join(code_dir, "custom.py")
    if os.path.isfile(beside):
        return beside
    found = []
    for folder, folders, files in os.walk(code_dir):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED_FOLDERS and not name.startswith("."))
        if "custom.py" in files:
            found.append(os.path.join(folder, "custom.py"))
    if len(found) > 1:
        raise ModelLoadError(
            "found several custom.py below {}: {}; keep the one with the hooks and put it into {} itself".format(
                code_dir, ", ".join(os.path.relpath(path, code_dir) for path in found), code_dir
            )
        )
    if not found and os.path.isfile(os.path.join(code_dir, "custom.R")):
        raise ModelLoadError(
            "{}: hooks in R are not run by Backline; write them in custom.py, or keep this model where R runs".format(
                os.path.join(code_dir, "custom.R")
            )
        )
    return found[0] if found else None


class _FreshLoader(importlib.machinery.SourceFileLoader):
    """Compiles the file as it is now, whatever bytecode lies beside it.

    Python takes bytecode for current by the second and the size of its source: a model that is changed and loaded anew
    within a second could be the old one.
    """

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def import_custom(path: str, code_dir: str) -> ModuleType:
    """Import ``custom.py`` from its path as the module ``custom``.

    Raises ``ModelLoadError`` with file and line of what is wrong in it.
    """
    spec = importlib.util.spec_from_file_location("custom", path, loader=_FreshLoader("custom", path))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["custom"] = module  # before it runs: pickles made by it refer to it, and dataclasses look it up
    try:
        spec.loader.exec_module(module)
    except MemoryError:
        raise
    except BaseException as exc:
        sys.modules.pop("custom", None)
        name = os.path.relpath(path, code_dir)
        problem = _import_problem(exc, code_dir)
        if problem is None:
            line = _user_line(exc, code_dir)
            problem = "{}: {}{}".format(type(exc).__name__, exc, " (at {})".format(line) if line else "")
        raise ModelLoadError(
            "could not import {}: {}".format(name, problem), traceback=user_traceback(exc, code_dir)
        ) from exc
    return module


def _import_problem(exc: BaseException, code_dir: str) -> Optional[str]:
    """Return cause and mend for what Python itself has to say about user code: a missing package, bad syntax."""
    if isinstance(exc, SyntaxError):
        text = (exc.text or "").strip()
        file = _relative(exc.filename or "?", code_dir)
        return "{} in {}:{}{} (as Python {}.{} reads it, the model's interpreter)".format(
            exc.msg, file, exc.lineno, ": {}".format(text) if text else "", *sys.version_info[:2]
        )
    if isinstance(exc, ModuleNotFoundError) and exc.name:
        line = _user_line(exc, code_dir)
        return "{}{}".format("{}: ".format(line) if line else "", missing_package(exc.name, code_dir))
    return None


def missing_package(name: str, code_dir: str) -> str:
    """Say that a module is not there for the model's interpreter, and how to get it."""
    root = name.partition(".")[0]
    if root == MODULE_NAME:
        return (
            "there is no module {!r}; of {} Backline offers RuntimeParameters and CustomHTTPError, "
            "imported from {} itself".format(name, MODULE_NAME, MODULE_NAME)
        )
    if root in sys.modules or importlib.util.find_spec(root) is not None:
        return "there is no module {!r} in the installed package {!r}; another version of it may be needed".format(
            name, root
        )
    distribution = _DISTRIBUTIONS.get(root, root)
    interpreter = "{} (Python {}.{})".format(sys.executable, *sys.version_info[:2])
    command = "{} -m pip install {}".format(sys.executable, distribution)
    if os.path.isfile(os.path.join(code_dir, "requirements.txt")):
        command = "{} -m pip install -r {}".format(sys.executable, os.path.join(code_dir, "requirements.txt"))
        command += " (add {} to it if it is not there)".format(distribution)
    if os.path.isfile(os.path.join(sys.prefix, "backline-environment.json")):
        # Built by --env auto: it has no pip, and is built anew when what asks for it changes.
        mend = "add {} to what the model's directory asks for (requirements.txt), and start again".format(distribution)
    else:
        mend = "run {}".format(command)
    return "the package {!r} is not installed for the model's interpreter {}; {}".format(root, interpreter, mend)


def translate(exc: BaseException, phase: str, code_dir: str) -> ReportedError:
    """Return what to report for an exception of user code or of the artifact; ``phase`` is the hook or "predict"."""
    if isinstance(exc, ReportedError):
        return exc
    trace = user_traceback(exc, code_dir)
    if isinstance(exc, MemoryError):
        return OutOfMemory(
            "out of memory when {} ({}); send fewer rows or raise --memory-limit".format(_doing(phase), phase),
            traceback=trace,
        )
    if isinstance(exc, CustomHTTPError):
        own_status = exc.status_code if _is_error_status(exc.status_code) else 500
        return _user_http_error(exc.message or str(exc), own_status, exc.headers, True, trace)
    status: Any = getattr(exc, "status_code", None)
    text: Any = getattr(exc, "detail", None)
    if text is None or not _is_error_status(status):
        # werkzeug's way; its description is a class attribute or None, but always there
        status, text = getattr(exc, "code", None), getattr(exc, "description", None)
        if not hasattr(exc, "description"):
            status = None
    if _is_error_status(status):
        return _user_http_error(text, status, getattr(exc, "headers", None), False, trace)
    summary = traceback.format_exception_only(type(exc), exc)[-1].strip()
    name = type(exc).__name__
    if summary.partition(":")[0].rpartition(".")[2] != name:  # a syntax error prints its place first
        summary = "{}: {}".format(name, exc)
    else:
        summary = "{}: {}".format(name, exc) if str(exc) else name
    return HookFailed("error was raised when {} ({}): {}".format(_doing(phase), phase, summary), traceback=trace)


def _doing(phase: str) -> str:
    return HOOK_TABLE[phase].doing if phase in HOOK_TABLE else "making predictions"


def _is_error_status(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599


def _user_http_error(text: Any, status: Any, headers: Any, marked: bool, trace: str) -> ModelCallError:
    if isinstance(text, (dict, list)):
        import json

        text = json.dumps(text, default=str)
    try:
        plain = {str(name): str(value) for name, value in dict(headers or {}).items()}
    except (TypeError, ValueError):
        plain = {}
    if sum(len(name) + len(value) for name, value in plain.items()) > _MAX_ERROR_HEADERS:
        plain = {}
    details = {"status": int(status), "headers": plain, "marked": marked}
    return UserHTTPError(str(text) if text else "HTTP status {}".format(status), details=details, traceback=trace)


def user_traceback(exc: BaseException, code_dir: str) -> str:
    """Return the traceback as its reader, the model's author, needs it.

    Frames of files in the model folder are kept; of a run of other frames below them only the last one, where the
    exception came from. Frames above the first one of the user are ours and say nothing.
    """
    report = traceback.TracebackException(type(exc), exc, exc.__traceback__, limit=None)
    _trim(report, os.path.join(os.path.realpath(code_dir), ""))
    return "".join(report.format())


def _trim(report: traceback.TracebackException, folder: str) -> None:
    frames: List[traceback.FrameSummary] = []
    pending: Optional[traceback.FrameSummary] = None
    for frame in report.stack:
        if os.path.realpath(frame.filename).startswith(folder):
            if pending is not None and frames:
                frames.append(pending)
            frames.append(frame)
            pending = None
        else:
            pending = frame
    # The import machinery is nobody's frame: a syntax error in custom.py comes from there.
    if pending is not None and not pending.filename.startswith("<frozen "):
        frames.append(pending)
    report.stack[:] = frames
    for other in (report.__cause__, report.__context__):
        if other is not None:
            _trim(other, folder)


def _user_line(exc: BaseException, code_dir: str) -> Optional[str]:
    """Return ``file:line`` of the innermost frame in the model folder."""
    folder = os.path.join(os.path.realpath(code_dir), "")
    line = None
    trace: Optional[TracebackType] = exc.__traceback__
    while trace is not None:
        file = os.path.realpath(trace.tb_frame.f_code.co_filename)
        if file.startswith(folder):
            line = "{}:{}".format(_relative(file, code_dir), trace.tb_lineno)
        trace = trace.tb_next
    return line


def _relative(file: str, code_dir: str) -> str:
    folder = os.path.join(os.path.realpath(code_dir), "")
    file = os.path.realpath(file)
    return file[len(folder) :] if file.startswith(folder) else file
