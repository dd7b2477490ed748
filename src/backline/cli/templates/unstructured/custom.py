"""An unstructured model: any text in, JSON about it out. Needs nothing but Python."""

import json
import re
from collections import Counter


def load_model(code_dir):
    """Return what `score_unstructured` gets as `model`: here the words that do not count."""
    return {"a", "an", "and", "the", "of", "to", "in", "is", "was"}


def score_unstructured(model, data, query, **kwargs):
    """Return the body of the answer and its type. `data` is text, or bytes where the content type says so.

    `query` holds the query string: with ?top=3 only the three most frequent words are told.
    """
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    words = [word for word in re.findall(r"\w+", text.lower()) if word not in model]
    answer = {
        "characters": len(text),
        "words": len(words),
        "frequent": Counter(words).most_common(int(query.get("top", 5))),
    }
    return json.dumps(answer), {"mimetype": "application/json", "charset": "utf8"}
