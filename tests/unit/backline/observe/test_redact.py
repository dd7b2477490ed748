"""Secrets do not reach the log, and what is none stays readable."""

from __future__ import annotations

import pytest

from backline.config.outside import secrets_in
from backline.observe.redact import HIDDEN, Redactor

redact = Redactor(["s3cr3t-backend-key", "short"])


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer {}",
        "authorization: {}",
        "Proxy-Authorization: Basic {}",
        "headers={{'Authorization': 'Bearer {}', 'Accept': '*/*'}}",
        '{{"api_key": "{}", "model": "x"}}',
        'said "{{\\"api_key\\": \\"{}\\"}}"',
        "[(b'authorization', b'Bearer {}'), (b'accept', b'*/*')]",
        "x-api-key: {}",
        "OPENAI_API_KEY={}",
        "GET /v1?access_token={}&top=3 failed",
        "https://bucket/x?sig={}#part",
        "https://user:{}@host/path",
        "Cookie: session={}",
        "password = {}",
        "got sk-{}",
        "ValueError: api_key={}",
        "tokenizer: author=me secret={}",
        "sent Bearer {}, and got 401",
        "vllm serve --api-key {} --model tiny",
        "hub login --token={}",
    ],
)
def test_a_secret_is_hidden_and_the_words_around_it_are_kept(text: str) -> None:
    secret = "Zm9vYmFyLXNlY3JldC0xMjM0NTY3ODkw"
    hidden = redact(text.format(secret))
    assert secret not in hidden
    assert HIDDEN in hidden
    for word in ("model", "top=3", "accept", "Accept", "host/path", "got 401"):
        assert (word in text) == (word in hidden)


@pytest.mark.parametrize(
    "text",
    [
        "max_tokens=512 and total_tokens: 9",
        "the key 'age' is missing; expected one of ['name', 'income']",
        "{'usage': {'prompt_tokens': 3, 'completion_tokens': 4}}",
        "KeyError: 'hello'",
        "http://127.0.0.1:8000/v1/models?page=2",
        "no API key is configured; set OPENAI_API_KEY",
        "api_key=None",
        "tokenizer loaded in 3 s, author: Smith",
        "401 the bearer of bad news",
        "--backend-api-key-variable LLM_KEY",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_a_known_secret_is_found_wherever_it_stands_and_short_words_are_none() -> None:
    assert redact("printed xs3cr3t-backend-keyx in short") == f"printed x{HIDDEN}x in short"


def test_redacting_twice_changes_nothing() -> None:
    once = redact("Authorization: Bearer abcdefghijkl, url https://a:bcdefghi@h/?token=abcdefgh")
    assert redact(once) == once


def test_secrets_are_taken_from_variables_by_their_names() -> None:
    found = secrets_in(
        {
            "OPENAI_API_KEY": "aaaaaaaaaaaaaaaa",
            "OTEL_EXPORTER_OTLP_HEADERS": "x-team=bbbbbbbbbbbbbbbb,other=cccccccccccccccc",
            "MLOPS_RUNTIME_PARAM_LLM_API_KEY": '{"type":"credential","payload":{"apiToken":"dddddddddddddddd"}}',
            "KEYBOARD": "eeeeeeeeeeeeeeee",
            "PATH": "/usr/bin",
        }
    )
    assert {"a" * 16, "b" * 16, "c" * 16, "d" * 16} <= set(found)
    assert "e" * 16 not in found


@pytest.mark.parametrize(
    "piece",
    [
        "a-b-c_",
        "eyJ-",
        "--a-",
        "bearer ",
        "://",
        "key",
        "token=",
        "authorization: ",
        "?a.token",
        "\\'",
        "sk-",
        "api_key ",
    ],
)
def test_no_text_is_made_to_take_long(piece: str) -> None:
    """A pattern that looks at each place again and again would never end here."""
    assert redact(" token " + piece * 200_000) is not None
