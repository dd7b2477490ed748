"""Figures about a text: bytes or text in, JSON out, and no library at all."""

import json
import re
from collections import Counter


def load_model(code_dir):
    """There is nothing to load, but this hook or an artifact tells that the folder is a model."""
    return re.compile(r"[^\W\d_]+")


def score_unstructured(model, data, query, **kwargs):
    """Return the figures; `?top=3` in the URL asks for more or fewer of the frequent words."""
    text = data if isinstance(data, str) else data.decode(kwargs.get("charset") or "utf8", "replace")
    words = model.findall(text.lower())
    sentences = [sentence for sentence in re.split(r"[.!?]+", text) if sentence.strip()]
    figures = {
        "characters": len(text),
        "words": len(words),
        "sentences": len(sentences),
        "words_per_sentence": round(len(words) / len(sentences), 1) if sentences else 0,
        "frequent": Counter(word for word in words if len(word) > 3).most_common(int(query.get("top", 3))),
    }
    return json.dumps(figures, ensure_ascii=False), {"mimetype": "application/json", "charset": "utf8"}
