"""A text generation model that needs no LLM: it answers with the most telling sentence of the text it is given.

Put a call to your LLM in place of `most_telling`.
"""

import re
import time
import uuid
from collections import Counter

PROMPT_COLUMN = "promptText"
RESULT_COLUMN = "resultText"  # the targetName in model-metadata.yaml


def most_telling(text):
    """Return the sentence whose words come up most often in the whole text."""
    sentences = re.split(r"(?<=[.!?])\s+", text.strip())
    counts = Counter(re.findall(r"\w{4,}", text.lower()))
    return max(sentences, key=lambda sentence: sum(counts[word] for word in re.findall(r"\w{4,}", sentence.lower())))


def load_model(code_dir):
    """Return what the other hooks get as `model`."""
    return most_telling


def score(data, model, **kwargs):
    """Return one column of text, named like the target, for rows of prompts."""
    return data[PROMPT_COLUMN].map(model).to_frame(RESULT_COLUMN)


def chat(completion_create_params, model, **kwargs):
    """Return an OpenAI chat completion for the last message."""
    messages = completion_create_params["messages"]
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": completion_create_params.get("model", "most-telling"),
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": model(messages[-1]["content"])},
            }
        ],
    }
