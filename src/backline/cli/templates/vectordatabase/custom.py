"""A vector database: finds the stored document that is nearest to each query, by the words they share.

Put your embedding and your index in place of `vector` and the loop in `score`.
"""

import json
import re
from collections import Counter
from math import sqrt
from pathlib import Path

QUERY_COLUMN = "query"


def vector(text):
    """Return a text as word counts."""
    return Counter(re.findall(r"\w+", text.lower()))


def likeness(one, other):
    """Return the cosine of two word count vectors, from 0 to 1."""
    length = sqrt(sum(count**2 for count in one.values()) * sum(count**2 for count in other.values()))
    return sum(one[word] * other[word] for word in one) / length if length else 0.0


def load_model(code_dir):
    """Return the stored documents with their vectors; Backline hands them to `score` as `model`."""
    texts = json.loads((Path(code_dir) / "documents.json").read_text(encoding="utf-8"))
    return [(text, vector(text)) for text in texts]


def score(data, model, **kwargs):
    """Return the nearest document to each query, and how near it is."""
    found = []
    for query in data[QUERY_COLUMN]:
        wanted = vector(query)
        found.append(max((likeness(wanted, stored), text) for text, stored in model))
    return data.assign(document=[text for _, text in found], likeness=[near for near, _ in found])[
        ["document", "likeness"]
    ]
