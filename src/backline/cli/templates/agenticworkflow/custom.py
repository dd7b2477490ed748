"""An agentic workflow that needs no LLM: it plans which tool the message asks for, runs it, and answers.

Put your agent in place of `run_agent`; the `chat` hook can stay.
"""

import ast
import operator
import re
import time
import uuid
from datetime import datetime, timezone

from datarobot_drum import CustomHTTPError  # Backline offers this name to models; no package is needed

_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
}


def calculate(expression):
    """Return the value of plain arithmetic; raises ValueError for anything else."""

    def value(node):
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            return node.value
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](value(node.operand))
        raise ValueError("not plain arithmetic")

    return value(ast.parse(expression, mode="eval").body)


def run_agent(message, tools):
    """Pick a tool for the message, run it, and return the answer."""
    arithmetic = re.search(r"[-+*/().\d\s]*\d\s*[-+*/]\s*[-+*/().\d\s]*", message)
    if arithmetic:
        expression = arithmetic[0].strip().rstrip(".")
        try:
            return f"{expression} = {tools['calculate'](expression)}"
        except (ValueError, SyntaxError, ArithmeticError, RecursionError) as exc:
            return f"I could not calculate {expression}: {exc}"
    if re.search(r"\b(time|date|day|today)\b", message.lower()):
        return f"It is {tools['now']():%A %d %B %Y, %H:%M} UTC."
    return f"I can use these tools: {', '.join(sorted(tools))}. Try: what is 6 * 7?"


def load_model(code_dir):
    """Return the agent's tools; Backline hands them to `chat` as `model`."""
    return {"calculate": calculate, "now": lambda: datetime.now(timezone.utc)}


def last_text(completion_create_params):
    """Return the text of the last message; where there is none, the client is told so, with status 422."""
    try:
        content = completion_create_params["messages"][-1]["content"]
        return content if isinstance(content, str) else " ".join(part["text"] for part in content)
    except (LookupError, TypeError):
        raise CustomHTTPError(422, "messages must end with one that has text as its content") from None


def chat(completion_create_params, model, **kwargs):
    """Return an OpenAI chat completion for the last message, or its chunks where the client asks for a stream."""
    message = last_text(completion_create_params)
    common = {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "created": int(time.time()),
        "model": completion_create_params.get("model", "agent"),
    }
    if completion_create_params.get("stream"):
        return stream(common, message, model)
    answer = {"role": "assistant", "content": run_agent(message, model)}
    choice = {"index": 0, "message": answer, "finish_reason": "stop"}
    return {**common, "object": "chat.completion", "choices": [choice]}


def stream(common, message, tools):
    """Yield the answer word by word; what is yielded is sent at once."""
    common = {**common, "object": "chat.completion.chunk"}
    for word in re.findall(r"\S+\s*", run_agent(message, tools)):
        delta = {"role": "assistant", "content": word}
        yield {**common, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield {**common, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
