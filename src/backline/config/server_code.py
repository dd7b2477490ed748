"""Files of a model directory that are the operator's code for the server, not the model's."""

from __future__ import annotations

from pathlib import Path

FASTAPI_FILE = "custom_fastapi.py"
FLASK_FILE = "custom_flask.py"


def server_code(folder: Path | None) -> tuple[Path | None, Path | None]:
    """Return where the extension file for FastAPI is, and where the one for Flask is; ``None`` for what is not there.

    ``folder`` is ``None`` where no model directory was named.
    """
    if folder is None:
        return None, None
    found = [folder / name if (folder / name).is_file() else None for name in (FASTAPI_FILE, FLASK_FILE)]
    return found[0], found[1]
