"""The pickles of a model directory, and whether what they name is on the list of what may be unpickled.

A pickle is a program: unpickling it imports and calls what it names. So a name has to be on the list, by its library;
and a few names are never on it, whatever their library. It is about names: what the code behind an allowed name does is
not looked at.
"""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import io
import json
import lzma
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final

from backline.trial.pickle_reader import Global, NotReadable, Pickle, named_versions, numpy_pickle, read_pickles

_MOST_BYTES: Final = 4 << 30  # of one decompressed artifact: what decompresses to more is no model
_EXTENSIONS: Final = {".pkl", ".pickle", ".joblib", ".pth", ".pt", ".bin", ".ckpt", ".npy", ".npz", ".dill", ".model"}
_ARCHIVES: Final = {".zip", ".keras", ".pth", ".pt", ".npz", ".bin", ".ckpt", ".mar"}
_KERAS: Final = {".keras", ".h5", ".hdf5"}
_LEFT_OUT: Final = {"__pycache__", "site-packages", "node_modules"}

ALLOWED: Final[dict[str, tuple[str, ...]]] = {
    "Python": (
        "_codecs.encode",
        "copy_reg._reconstructor",
        "collections.Counter",
        "collections.OrderedDict",
        "collections.defaultdict",
        "collections.deque",
        "copyreg._reconstructor",
        "datetime",
        "decimal.Decimal",
        "fractions.Fraction",
        "functools.partial",
        "pathlib.PosixPath",
        "pathlib.PurePosixPath",
        "uuid.UUID",
        "zoneinfo.ZoneInfo._unpickle",
        *(
            f"{module}.{name}"
            for module in ("builtins", "__builtin__")
            for name in (
                "bool",
                "bytearray",
                "bytes",
                "complex",
                "dict",
                "float",
                "frozenset",
                "int",
                "list",
                "long",
                "object",
                "range",
                "set",
                "slice",
                "str",
                "tuple",
                "unicode",
                "xrange",
            )
        ),
    ),
    "numpy": (
        "numpy.core.multiarray",
        "numpy._core.multiarray",
        "numpy.core.numeric",
        "numpy._core.numeric",
        "numpy.dtype",
        "numpy.dtypes",
        "numpy.ndarray",
        "numpy.ma.core",
        "numpy.random",
        "numpy.matrix",
        *(
            f"numpy.{name}"
            for name in (
                "bool_",
                "bool",
                "int8",
                "int16",
                "int32",
                "int64",
                "uint8",
                "uint16",
                "uint32",
                "uint64",
                "float16",
                "float32",
                "float64",
                "longdouble",
                "complex64",
                "complex128",
                "str_",
                "bytes_",
                "datetime64",
                "timedelta64",
                "object_",
                "void",
                "nan",
                "log",
                "log1p",
                "exp",
                "expm1",
                "sqrt",
                "log10",
                "log2",
                "ufunc",
            )
        ),
        "numpy.core._ufunc_reconstruct",
        "numpy._core._ufunc_reconstruct",
        "numpy.core.umath",
        "numpy._core.umath",
    ),
    "pandas": (
        "pandas.core",
        "pandas._libs",
        "pandas.arrays",
        "pandas.offsets",
        *(
            f"pandas.{name}"
            for name in (
                "Categorical",
                "CategoricalDtype",
                "DataFrame",
                "DatetimeIndex",
                "DatetimeTZDtype",
                "Index",
                "Interval",
                "IntervalIndex",
                "MultiIndex",
                "NA",
                "NaT",
                "Period",
                "RangeIndex",
                "Series",
                "StringDtype",
                "Timedelta",
                "Timestamp",
            )
        ),
    ),
    "pyarrow": ("pyarrow.lib._restore_array", "pyarrow.lib.py_buffer", "pyarrow.lib.type_for_alias"),
    "scipy": ("scipy.sparse", "scipy.stats", "scipy.interpolate", "scipy.special", "scipy.spatial", "scipy._lib"),
    "scikit-learn": ("sklearn", "imblearn"),
    "joblib": ("joblib.numpy_pickle.NumpyArrayWrapper", "joblib.numpy_pickle.NDArrayWrapper"),
    "XGBoost": ("xgboost",),
    "LightGBM": ("lightgbm",),
    "CatBoost": ("catboost", "_catboost"),
    "PyTorch": (
        "torch.nn",
        "torch._utils",
        "torch._tensor",
        "torch.storage",
        "torch.serialization._get_layout",
        "torch.Size",
        "torch.Tensor",
        "torch.device",
        "torch.dtype",
        "torch.torch_version.TorchVersion",
        *(
            f"torch.{kind}Storage"
            for kind in (
                "Float",
                "Double",
                "Half",
                "BFloat16",
                "Long",
                "Int",
                "Short",
                "Char",
                "Byte",
                "Bool",
                "Untyped",
            )
        ),
        *(
            f"torch.{name}"
            for name in (
                "float32",
                "float64",
                "float16",
                "bfloat16",
                "int64",
                "int32",
                "int16",
                "int8",
                "uint8",
                "bool",
            )
        ),
    ),
}
"""What may be named, by library: a module with all below it, or one name."""

_NEVER_MODULES: Final = frozenset(
    [
        "os",
        "posix",
        "nt",
        "subprocess",
        "sys",
        "shutil",
        "socket",
        "pty",
        "runpy",
        "importlib",
        "ctypes",
        "webbrowser",
        "pickle",
        "_pickle",
        "marshal",
        "code",
        "codeop",
        "bdb",
        "pdb",
        "timeit",
        "asyncio",
        "multiprocessing",
        "threading",
        "signal",
        "platform",
        "commands",
        "popen2",
        "pip",
        "ssl",
        "http",
        "urllib",
        "requests",
        "inspect",
        "types",
        "operator",
        "builtins",
        "__builtin__",
        "io",
        "tempfile",
        "glob",
        "fileinput",
        "site",
        "gc",
        "resource",
    ]
)
_NEVER_NAMES: Final = frozenset(
    [
        "eval",
        "exec",
        "execfile",
        "compile",
        "__import__",
        "getattr",
        "setattr",
        "delattr",
        "globals",
        "locals",
        "vars",
        "open",
        "input",
        "apply",
        "map",
        "filter",
        "myeval",
        "getlincoef",
        "runstring",
        "system",
        "popen",
        "spawn",
        "call",
        "check_output",
        "run",
        "import_module",
        "load",
        "loads",
        "read_pickle",
        "exec_command",
        "attrgetter",
        "methodcaller",
        "itemgetter",
        "CodeType",
        "FunctionType",
        "breakpoint",
        "load_module",
        "exec_module",
        "_load_from_bytes",
        "rebuild_exc",
        "parse_function",
    ]
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A global that an artifact names; ``verdict`` is the library that it belongs to, or why it is not allowed."""

    file: str
    name: str
    count: int
    allowed: bool
    verdict: str


@dataclasses.dataclass(slots=True, kw_only=True)
class Scan:
    """What was found in the artifacts of a folder."""

    files: list[str] = dataclasses.field(default_factory=list)
    names: list[Named] = dataclasses.field(default_factory=list)
    problems: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    """Files that could not be read to their end, and why; and what is no pickle and carries code all the same."""
    versions: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)
    """File, library and version that an artifact says it was made with."""

    @property
    def modules(self) -> set[str]:
        """The top-level modules that unpickling imports."""
        return {named.name.partition(".")[0] for named in self.names}


def scan_folder(folder: Path, allow: Sequence[str] = ()) -> Scan:
    """Read every artifact of the folder without unpickling it. ``allow`` has further modules or names."""
    scan = Scan()
    own = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    for path in _artifacts(folder):
        name = str(path.relative_to(folder))
        found = Pickle()
        try:
            read = _read(path, found)
        except (OSError, EOFError, NotReadable, zipfile.BadZipFile, lzma.LZMAError, zlib.error) as exc:
            read = True
            scan.problems.append((name, f"could not be read to its end: {exc}"))
        scan.problems += [(name, problem) for problem in _keras_code(path)]
        if read:
            scan.files.append(name)
        for each, count in sorted(found.globals.items(), key=lambda item: str(item[0])):
            allowed, verdict = judge(each, allow, own)
            scan.names.append(Named(file=name, name=str(each), count=count, allowed=allowed, verdict=verdict))
        scan.versions += [(name, library, version) for library, version in named_versions(found)]
    return scan


def judge(named: Global, allow: Sequence[str], own: set[str]) -> tuple[bool, str]:
    """Return whether a name may be unpickled, and the library that it belongs to or why not."""
    full = str(named)
    top = named.module.partition(".")[0]
    if _is_below(full, allow):
        return True, "allowed by --allow"
    for library, prefixes in ALLOWED.items():
        if _is_below(full, prefixes) and not _NEVER_NAMES & set(full.split(".")):
            return True, library
    if top in _NEVER_MODULES or _NEVER_NAMES & set(full.split(".")):
        return False, "can run anything"
    if top in own:
        return True, "the folder's own code"
    return False, "not on the list"


def _is_below(name: str, prefixes: Sequence[str]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def _artifacts(folder: Path) -> Iterator[Path]:
    for base, directories, files in os.walk(folder):
        directories[:] = sorted(each for each in directories if not each.startswith(".") and each not in _LEFT_OUT)
        if "pyvenv.cfg" in files:
            directories.clear()
            continue
        for name in sorted(files):
            path = Path(base, name)
            if path.suffix.lower() in _EXTENSIONS | _ARCHIVES | _KERAS or _looks_like_pickle(path):
                yield path


def _looks_like_pickle(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(2)
            if len(start) < 2 or start[0] != 0x80 or not 2 <= start[1] <= 5:
                return False
            file.seek(-1, io.SEEK_END)
            return file.read(1) == b"."
    except OSError:
        return False


def _read(path: Path, found: Pickle) -> bool:
    """Read whatever pickles there are in a file; return whether it is of a kind that may hold some."""
    with path.open("rb") as file:
        start = file.read(16)
        file.seek(0)
        if zipfile.is_zipfile(path) and start[:2] == b"PK":
            return _read_archive(path, found)
        if start[:6] == b"\x93NUMPY":
            if numpy_pickle(file):
                read_pickles(file, found)
            return True
        stream = _decompressed(file, start)
        if stream is not None:
            read_pickles(stream, found)
            return True
        if path.suffix.lower() in _KERAS or start[:4] == b"\x89HDF":
            return path.suffix.lower() in _KERAS
        if path.suffix.lower() in (".bin", ".model", ".ckpt") and start[:1] != b"\x80":
            return False  # another library's own format
        # Before its zip files, torch wrote five pickles and then the bytes of its tensors.
        legacy = path.suffix.lower() in (".pt", ".pth", ".bin", ".ckpt")
        read_pickles(file, found, most=5 if legacy else None)
        return True


def _read_archive(path: Path, found: Pickle) -> bool:
    held = False
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            suffix = Path(member.filename).suffix.lower()
            if suffix not in (".pkl", ".pickle", ".joblib", ".npy"):
                continue
            held = True
            if member.file_size > _MOST_BYTES:
                raise NotReadable(f"{member.filename} has {member.file_size} bytes")
            with archive.open(member) as inner:
                if suffix != ".npy" or numpy_pickle(inner):
                    read_pickles(_bounded(inner), found)
    return held or path.suffix.lower() in _KERAS | {".pth", ".pt", ".npz"}


def _decompressed(file: IO[bytes], start: bytes) -> IO[bytes] | None:
    if start[:2] == b"\x1f\x8b":
        return _bounded(gzip.GzipFile(fileobj=file))
    if start[:3] == b"BZh":
        return _bounded(bz2.BZ2File(file))
    if start[:6] == b"\xfd7zXZ\x00" or start[:2] == b"\x5d\x00":
        return _bounded(lzma.LZMAFile(file))
    if start[:2] in (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda"):
        inflated = zlib.decompressobj().decompress(file.read(), _MOST_BYTES)
        return io.BytesIO(inflated)
    if start[:4] == b"\x04\x22\x4d\x18":
        raise NotReadable("it is compressed with LZ4, which Python cannot read; write it with compress=('zlib', 3)")
    return None


def _bounded(stream: Any) -> IO[bytes]:
    content: bytes = stream.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise NotReadable(f"it decompresses to more than {_MOST_BYTES} bytes")
    return io.BytesIO(content)


def _keras_code(path: Path) -> Iterator[str]:
    """A Lambda layer of Keras carries Python bytecode, in no pickle."""
    told = "holds a Lambda layer, which is Python code of its own: it runs when the model is loaded"
    suffix = path.suffix.lower()
    try:
        if suffix == ".keras" and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if "config.json" in archive.namelist() and _has_lambda(json.loads(archive.read("config.json"))):
                    yield told
        elif suffix in (".h5", ".hdf5"):
            content = path.read_bytes()
            if b'"class_name": "Lambda"' in content or b'"class_name":"Lambda"' in content:
                yield told
    except (OSError, ValueError, zipfile.BadZipFile) as exc:
        yield f"could not be read: {exc}"


def _has_lambda(config: object) -> bool:
    if isinstance(config, dict):
        return config.get("class_name") == "Lambda" or any(_has_lambda(value) for value in config.values())
    return isinstance(config, list) and any(_has_lambda(value) for value in config)
