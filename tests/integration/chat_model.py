"""A model folder with a ``chat`` hook, plain or asynchronous, that does what the last message says."""

from __future__ import annotations

from pathlib import Path

_METADATA = "name: m\ntype: inference\ntargetType: textgeneration\ninferenceModel:\n  targetName: text\n"

_PLAIN = """
import os
import time
import threading

import pandas as pd

HERE = os.path.dirname(os.path.abspath(__file__))
PAUSE = 0.02


class HTTPException(Exception):
    code = 418
    description = "a teapot"


def note(event):
    with open(os.path.join(HERE, "events"), "a") as file:
        file.write("%s %r\\n" % (event, time.time()))


def chunk(**choice):
    choice = {"index": 0, "delta": {}, "finish_reason": None, **choice}
    return {"id": "chatcmpl-1", "created": 1, "model": "m", "choices": [choice]}  # without object: that may be so


def completion(text):
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    named = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m"}
    return {**named, "choices": [choice], "usage": usage}


def score(data, model, **kwargs):
    if data["promptText"].iloc[0] == "die":
        os._exit(3)
    return data["promptText"].str.upper().to_frame("text")


def get_supported_llm_models(model):
    return [{"id": "one"}, {"id": "two"}]


def stream(word, rest, name):
    note("begun " + name)
    try:
        if word == "wait":
            while not os.path.exists(os.path.join(HERE, rest)):
                time.sleep(PAUSE)
        if word == "fail-first":
            raise ValueError("no word from me")
        if word == "teapot":
            raise HTTPException
        yield chunk(delta={"role": "assistant", "content": ""})
        if word == "fail":
            raise ValueError("in the middle")
        if word == "die":
            os._exit(3)
        if word == "flood":
            for number in range(int(rest)):
                yield chunk(delta={"content": "x" * 1000})
                note("flooded %d" % number)
        if word == "say":
            for part in rest.split(" "):
                print("say", part)
                time.sleep(PAUSE)
                yield chunk(delta={"content": part + " "})
        if word == "trickle":
            while True:
                time.sleep(PAUSE)
                yield chunk(delta={"content": "more "})
        if word == "silence":
            time.sleep(float(rest))
        yield chunk(finish_reason="stop")
    finally:
        note("closed " + name)


def chat(completion_create_params, model, **kwargs):
    word, _, rest = completion_create_params["messages"][-1]["content"].partition(" ")
    name = completion_create_params.get("name", "-")
    if word == "whole" or not completion_create_params.get("stream"):
        note("begun " + name)
        if word == "sleep":
            time.sleep(float(rest))
        note("closed " + name)
        return completion(rest)
    return stream(word, rest, name)
"""


def write_chat_model(folder: Path, kind: str) -> Path:
    """Write the folder; ``kind`` is ``plain`` or ``async``."""
    source = _PLAIN
    if kind == "async":
        source = (
            source.replace("def stream", "async def stream")
            .replace("def chat", "async def chat")
            .replace("time.sleep", "await asyncio.sleep")
            .replace("import os\n", "import asyncio\nimport os\n", 1)
        )
    folder.mkdir()
    (folder / "custom.py").write_text(source)
    (folder / "model-metadata.yaml").write_text(_METADATA)
    return folder
