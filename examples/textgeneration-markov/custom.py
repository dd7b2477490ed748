"""A text generator small enough to read: a Markov chain over words, for rows of prompts and for chat."""

import json
import random
import re
import time
import zlib
from pathlib import Path

LENGTH = 40  # words, at most
NAME = "markov-harbour"


class MarkovChain:
    def __init__(self, following):
        self.following = following

    def generate(self, prompt, length=LENGTH):
        """Go on from the prompt's last words to the end of a sentence; the same prompt gets the same text."""
        chance = random.Random(zlib.crc32(prompt.encode()))
        said = re.findall(r"[A-Za-z]+", prompt)[-2:] or ["the"]
        text = []
        while len(text) < length:
            choices = self.following.get(" ".join(said[-2:]).lower()) or self.following.get(said[-1].lower())
            word = chance.choice(choices or self.following["."])
            text.append(word)
            said.append(word)
            if word == "." and len(text) > length // 2:
                break
        return re.sub(r" ([.,])", r"\1", " ".join(text))


def load_model(code_dir):
    return MarkovChain(json.loads((Path(code_dir) / "markov.json").read_text()))


def score(data, model, **kwargs):
    """Return one column of text, named like the target in model-metadata.yaml."""
    return data["promptText"].map(model.generate).to_frame("resultText")


def chat(completion_create_params, model, **kwargs):
    """Return an OpenAI chat completion that goes on from the last message."""
    length = completion_create_params.get("max_tokens") or LENGTH
    prompt = completion_create_params["messages"][-1]["content"]
    text = model.generate(prompt, length)
    return {
        "id": f"chatcmpl-{zlib.crc32(text.encode()):08x}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": NAME,
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop" if text.endswith(".") else "length",
                "message": {"role": "assistant", "content": text},
            }
        ],
        "usage": {
            "prompt_tokens": len(prompt.split()),
            "completion_tokens": len(text.split()),
            "total_tokens": len(prompt.split()) + len(text.split()),
        },
    }


def get_supported_llm_models(model):
    return [{"id": NAME, "object": "model", "created": 1735689600, "owned_by": "backline"}]
