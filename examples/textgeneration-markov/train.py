"""Counts which word follows which in corpus.txt and writes markov.json beside this file."""

import json
import re
from collections import defaultdict
from pathlib import Path

here = Path(__file__).resolve().parent
words = re.findall(r"[A-Za-z]+|[.,]", (here / "corpus.txt").read_text())

# From each pair of words, and from each single one for pairs that were never seen, to what came next.
following = defaultdict(list)
for first, second, third in zip(words, words[1:], words[2:]):
    following[f"{first} {second}".lower()].append(third)
    following[second.lower()].append(third)

(here / "markov.json").write_text(json.dumps(following))
print(f"{len(words)} words, {len(following)} states")
