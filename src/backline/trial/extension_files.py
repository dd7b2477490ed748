"""Looks at ``custom_fastapi.py`` and ``custom_flask.py`` without running them."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from backline.config.server_code import server_code
from backline.trial.finding import Finding, Status, Table
from backline.trial.imports import imports_of_file

_BLOCKING = {
    "time.sleep": "await asyncio.sleep(...)",
    "requests": "an asynchronous client, such as httpx.AsyncClient",
    "urllib.request.urlopen": "an asynchronous client, such as httpx.AsyncClient",
    "subprocess.run": "await asyncio.create_subprocess_exec(...)",
    "subprocess.check_output": "await asyncio.create_subprocess_exec(...)",
    "os.system": "await asyncio.create_subprocess_exec(...)",
}
_INSTEAD = (
    ("before_request", "a middleware, or app.router.dependencies.append(Depends(check))"),
    ("after_request", "a middleware that wraps send"),
    ("route", '@app.get("/path") or @app.post("/path")'),
    ("add_url_rule", "app.add_api_route(path, function)"),
    ("register_blueprint", "app.include_router(router)"),
    ("wsgi_app", "app.add_middleware(Wrapper), an ASGI one"),
    ("errorhandler", "@app.exception_handler(Class)"),
    ("teardown_request", "a middleware, with try and finally"),
)


def check_extension_files(folder: Path, *, custom_flask: bool) -> Finding:
    """Return what is to be said of the operator's files."""
    fastapi_file, flask_file = server_code(folder)
    if fastapi_file is not None:
        return _check_fastapi(fastapi_file, flask_file)
    if flask_file is not None:
        return _check_flask(flask_file, custom_flask=custom_flask)
    return Finding(check="extension files", status=Status.PASSED, seen="there is none, and none is needed")


def _parse(file: Path) -> ast.Module | str:
    try:
        return ast.parse(file.read_bytes(), str(file))
    except (SyntaxError, ValueError, OSError) as exc:
        return f"{file.name}:{getattr(exc, 'lineno', None) or 1}: {exc.args[0]}"


def _finding(status: Status, seen: str, mend: str = "", rows: list[tuple[str, str]] | None = None) -> Finding:
    table = Table(head=("where", "seen"), rows=tuple(rows)) if rows else None
    return Finding(check="extension files", status=status, seen=seen, mend=mend, table=table)


def _check_fastapi(file: Path, flask_file: Path | None) -> Finding:
    tree = _parse(file)
    if isinstance(tree, str):
        return _finding(Status.FAILED, tree, "mend that line; the server does not start with it")
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    defined |= {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    if not {"init_app", "lifespan"} & defined:
        return _finding(
            Status.FAILED, f"{file.name} defines neither init_app(app) nor lifespan(app)", "define one of them"
        )
    missing = [
        (each.place, f"imports {each.module}, which the server's environment does not have")
        for each in imports_of_file(file)
        if not each.optional and not _is_there(each.module, file.parent)
    ]
    if missing:
        return _finding(
            Status.FAILED,
            f"{missing[0][0]} {missing[0][1]}",
            "install it beside Backline: the file runs in the server, not in the model's environment",
            missing,
        )
    rows = [(f"{file.name}:{line}", f"{name} blocks the event loop; {mend}") for line, name, mend in _blocking(tree)]
    rows += [
        (f"{file.name}:{node.lineno}", "a BaseHTTPMiddleware hides that a client has left; write an ASGI middleware")
        for node in ast.walk(tree)
        if (isinstance(node, ast.ClassDef) and any("BaseHTTPMiddleware" in ast.unparse(base) for base in node.bases))
        or (isinstance(node, ast.Call) and ast.unparse(node.func) == "app.middleware")
    ]
    if flask_file is not None:
        rows.append((flask_file.name, f"is not run, as there is {file.name}; take it out of the directory"))
    if rows:
        return _finding(
            Status.WARNING, f"{rows[0][0]}: {rows[0][1]}", "docs/how-to/extend-the-server.md shows how", rows
        )
    return _finding(Status.PASSED, f"{file.name} can be read, and its imports are there")


def _check_flask(file: Path, *, custom_flask: bool) -> Finding:
    tree = _parse(file)
    if isinstance(tree, str):
        return _finding(Status.FAILED, tree, "mend that line, or write custom_fastapi.py instead")
    rows = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            rows += [
                (f"{file.name}:{node.lineno}", f"{name}: write {instead}")
                for name, instead in _INSTEAD
                if node.attr == name
            ]
    rows.sort(key=lambda row: int(row[0].rpartition(":")[2]))
    if not custom_flask:
        return _finding(Status.WARNING, f"{file.name} is left out (--no-custom-flask)", "write custom_fastapi.py", rows)
    absent = [name for name in ("flask", "a2wsgi") if not _is_there(name, None)]
    mend = "write custom_fastapi.py instead; docs/how-to/move-from-flask.md shows how"
    if absent:
        seen = (
            f"{file.name} needs {' and '.join(absent)} in the server's environment; the server does not start without"
        )
        return _finding(
            Status.FAILED, seen, f"{mend}, or install flask and backline[flask-bridge] beside the server", rows
        )
    return _finding(Status.WARNING, f"{file.name} is written for Flask, and runs through a bridge", mend, rows)


def _is_there(module: str, folder: Path | None) -> bool:
    if folder is not None and ((folder / f"{module}.py").is_file() or (folder / module).is_dir()):
        return True
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _blocking(tree: ast.Module) -> Iterator[tuple[int, str, str]]:
    """Yield calls in coroutines that are known to block."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.AsyncFunctionDef):
            continue
        for call in _own_calls(node):
            name = ast.unparse(call.func)
            for known, instead in _BLOCKING.items():
                if name == known or name.startswith(known + "."):
                    yield call.lineno, name, f"write {instead}, or a plain def for the route"


def _own_calls(function: ast.AsyncFunctionDef) -> Iterator[ast.Call]:
    """Yield the calls of a coroutine itself; what a plain function inside it does may run in a thread."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Call):
            yield node
        waiting += ast.iter_child_nodes(node)
