"""What the worker makes of headers, and of the bodies that are no tables: chats, and what hooks read by themselves."""

from __future__ import annotations

import json
import random
import re
import warnings

from backline_worker.codecs import SUPPORTED_OUTPUT, choose_output
from backline_worker.codecs.formats import split_content_type
from backline_worker.contract import chat, unstructured
from backline_worker.errors import RequestError
from tests.fuzz.cases import Case, Wrong
from tests.fuzz.damage import NUMBERS, TEXTS, damaged, damaged_document
from tests.fuzz.targets.tables import CHARSETS, JSON_NASTY, JSON_TOKENS, check_record

_TOKENS = re.compile(rb'[,;=/*" ]|[^,;=/*" ]+')
_NASTY = (b",", b";", b"=", b"/", b"*", b"*/*", b'"', b"\\", b'"\\', b"q=", b";q=0", b"q=1.0001", b"text/csv",
b"text/*",
          b";;", b",,", b'a="b,c";q="1"', b"application/json", *NUMBERS, *TEXTS)  # fmt: skip


class Headers:
    """Accept and Content-Type."""

    seconds = 2.0
    _accepts = (
        b"text/csv;q=0.5, application/json;q=0.9, */*;q=0.1",
        b'application/vnd.apache.arrow.stream; a="x,y"; q=1, text/*',
        b"*/*",
        b"*; q=.2, text/html, image/gif",
    )
    _types = (
        b"text/csv; charset=utf-8",
        b'application/json;charset="latin-1"; header=present',
        b"text/plain",
        b"a/b; c=d",
    )

    def make(self, draw: random.Random) -> Case:
        accept = damaged(draw, draw.choice(self._accepts), _TOKENS, _NASTY)
        names = tuple(name.encode() for name in CHARSETS)
        content_type = damaged(draw, draw.choice(self._types), _TOKENS, (*_NASTY, *names))[:2000]
        return Case(
            accept[:20_000],
            {"type": content_type.decode("latin-1"), "data": draw.choice(("a,b\n1,2\n", "é", "\0" * 50))},
        )

    def check(self, case: Case) -> str:
        split_content_type(case.options["type"])
        outcome = "text"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                unstructured.read_input(case.options["type"], case.options["data"].encode("utf-16"))
        except RequestError as exc:
            outcome = check_record(exc)
        try:
            chosen = choose_output(case.body.decode("latin-1"), SUPPORTED_OUTPUT)
        except RequestError as exc:
            return outcome + ", " + check_record(exc)
        if not chosen.isascii() or "/" not in chosen or len(chosen) > 100:
            raise Wrong(f"answers as {chosen!r}")
        return outcome + ", chosen"


class Chats:
    """The body of a chat."""

    seconds = 2.0
    _seed = json.dumps(
        {
            "model": "m",
            "messages": [
                {"role": "user", "content": "é 😀"},
                {"role": "tool", "content": [{"type": "text", "text": "x"}]},
            ],
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0.5,
            "datarobot_association_id": "a",
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        },
    ).encode()

    def make(self, draw: random.Random) -> Case:
        if draw.random() < 0.5:
            return Case(damaged_document(draw, json.loads(self._seed), ("stream", "stream_options", "messages")), {})
        return Case(damaged(draw, self._seed, JSON_TOKENS, (b'"stream"', b'"messages"', *JSON_NASTY)), {})

    def check(self, case: Case) -> str:
        try:
            request = chat.read_request(case.body, {})
        except RequestError as exc:
            return check_record(exc)
        request.association.encode("utf-8", "backslashreplace")
        chat.write_completion({"choices": [], "echo": request.params.get("model")}, request.association)
        return "read"
