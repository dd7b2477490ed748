"""A text generation model that needs no LLM: it answers with the most telling sentence of the text it is given.

Put a call to your LLM in place of `most_telling`.
"""

import re
import time
import uuid
from collections import Counter

from datarobot_drum import CustomHTTPError  # Backline offers this name to models; no package is needed

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


def last_text(completion_create_params):
    """Return the text of the last message; where there is none, the client is told so, with status 422."""
    try:
        content = completion_create_params["messages"][-1]["content"]
        return content if isinstance(content, str) else " ".join(part["text"] for part in content)
    except (LookupError, TypeError):
        raise CustomHTTPError(422, "messages must end with one that has text as its content") from None


def chat(completion_create_params, model, **kwargs):
    """Return an OpenAI chat completion for the last message, or its chunks where the client asks for a stream."""
    answer = model(last_text(completion_create_params))
    common = {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "created": int(time.time()),
        "model": completion_create_params.get("model", "most-telling"),
    }
    if completion_create_params.get("stream"):
        return stream(common, answer)
    message = {"role": "assistant", "content": answer}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {**common, "object": "chat.completion", "choices": [choice]}


def stream(common, answer):
    """Yield the answer word by word; what is yielded is sent at once."""
    common = {**common, "object": "chat.completion.chunk"}
    for word in re.findall(r"\S+\s*", answer):
        delta = {"role": "assistant", "content": word}
        yield {**common, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield {**common, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
