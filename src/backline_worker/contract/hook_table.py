"""The hooks that ``custom.py`` may define: with what each is called, when, and what it returns.

The table in ``docs/reference/model-folder.md`` is made from this one.
"""

from __future__ import annotations

from typing import Dict, NamedTuple, Tuple


class HookEntry(NamedTuple):
    """``arguments`` go by position; ``offered`` by keyword, to hooks that take them; ``doing`` names it in errors."""

    arguments: Tuple[str, ...]
    offered: Tuple[str, ...]
    doing: str
    called: str
    returns: str


HOOK_TABLE: Dict[str, HookEntry] = {
    "init": HookEntry((), ("code_dir",), "starting", "once, first", "nothing"),
    "load_model": HookEntry(
        ("code_dir",),
        (),
        "loading the model",
        "once, in place of opening the artifact",
        "any object: the `model` of the other hooks",
    ),
    "read_input_data": HookEntry(
        ("input_binary_data",),
        (),
        "reading the input data",
        "for each request, in place of decoding the body",
        "usually a DataFrame",
    ),
    "transform": HookEntry(
        ("data", "model"),
        (),
        "transforming the data",
        "for each request, before predicting; of a transform model in place of the artifact, and with `y` by keyword",
        "a DataFrame; of a transform model the rows, or a pair of rows and `y`",
    ),
    "score": HookEntry(
        ("data", "model"),
        ("positive_class_label", "negative_class_label", "class_labels"),
        "making predictions",
        "for each request, in place of the artifact's own predict",
        "a DataFrame, as [below](#what-score-and-post_process-return)",
    ),
    "post_process": HookEntry(
        ("predictions", "model"), (), "post-processing the predictions", "for each request, last", "as `score`"
    ),
    "score_unstructured": HookEntry(
        ("model", "data"),
        ("query", "mimetype", "charset", "headers"),
        "making predictions",
        "for each unstructured request, in place of the four above",
        "as [below](#unstructured-models)",
    ),
    "chat": HookEntry(
        ("completion_create_params", "model"),
        ("headers",),
        "answering the chat request",
        "for each chat request",
        "a chat completion or its chunks, as [below](#chat)",
    ),
    "get_supported_llm_models": HookEntry(
        ("model",), (), "listing the models", "for the list of models", "records with an `id`, or names"
    ),
}
