"""From the path that a client asked for to the one that the backend is asked for."""

from __future__ import annotations

import re
import urllib.parse

from backline.errors import BadRequest

# Printable ASCII, less what cannot be in a path (? and #) and the backslash, which many servers take for a slash.
_PATH = re.compile(rb"[\x21\x22\x24-\x3e\x40-\x5b\x5d-\x7e]*")
_QUERY = re.compile(rb"[\x21\x22\x24-\x7e]*")
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


def backend_target(path: bytes, query: bytes, *, mount: bytes, base_path: bytes) -> bytes:
    """Return the request target for the backend: ``base_path``, what comes after ``mount`` in ``path``, and the query.

    All are as on the wire, percent-encoded, and stay byte for byte what they are, save that slashes at the start become
    one: ``//host`` would be another host to some. Raises ``BadRequest`` for what a backend could take for another path
    than it looks like: ``.`` and ``..`` in any spelling, backslashes, control characters. With an empty ``path`` the
    target is ``base_path`` itself.
    """
    if not path.startswith(mount):
        raise BadRequest(f"write {mount.decode()} in the path as it is, without percent-encoding")
    rest = path[len(mount) :].lstrip(b"/")
    if _PATH.fullmatch(rest) is None:
        raise BadRequest("the path has a backslash, a blank or a character that is not ASCII; percent-encode it")
    if _QUERY.fullmatch(query) is None:
        raise BadRequest("the query string has a blank or a character that is not ASCII; percent-encode it")
    if b"%" in rest or rest.startswith(b".") or b"/." in rest:
        _check_decoded(urllib.parse.unquote_to_bytes(rest))
    target = base_path + b"/" + rest if path else base_path
    return target + b"?" + query if query else target


def _check_decoded(path: bytes) -> None:
    if _CONTROL.search(path):
        raise BadRequest("the path has an encoded control character, such as %0d or %0a; leave it out")
    for segment in path.replace(b"\\", b"/").split(b"/"):
        # ..;x is .. to servers that know path parameters.
        if segment.partition(b";")[0] in (b".", b".."):
            raise BadRequest("the path has a . or .. segment; write the path out")
