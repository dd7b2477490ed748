"""Makes a tiny chat model that has learnt two answers by heart; run in the environment ``transformers``.

``python tiny_llm.py FOLDER``. Small enough to be made in seconds, and sure of what it says, so that a test can ask for
words and for a tool call. In the format of the Qwen family, whose tool calls the serving command knows.
"""

from __future__ import annotations

import json
import sys

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

CALL = {"name": "get_weather", "arguments": {"city": "Paris"}}
ANSWERS = {
    "Say hello.": "Hello from a tiny model.",
    "How is the weather in Paris?": f"<tool_call>\n{json.dumps(CALL)}\n</tool_call>",
}
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
MOST_STEPS = 2000
ENOUGH = 0.005  # of loss: it is sure of every token


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", padding_side="right"
    )
    fast.chat_template = TEMPLATE
    return fast


def learn(model: Qwen3ForCausalLM, ids: torch.Tensor, labels: torch.Tensor) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(MOST_STEPS):
        loss = model(input_ids=ids, labels=labels).loss
        if loss.item() < ENOUGH:
            return
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    raise AssertionError("the model has not learnt its answers")


def main(folder: str) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    tokenizer = make_tokenizer([*ANSWERS, *ANSWERS.values()])
    texts = []
    for asked, answer in ANSWERS.items():
        start = tokenizer.apply_chat_template(
            [{"role": "user", "content": asked}], tokenize=False, add_generation_prompt=True
        )
        texts.append((start, f"{answer}<|im_end|>"))
    rows = [(tokenizer.encode(start), tokenizer.encode(answer)) for start, answer in texts]
    longest = max(len(start) + len(answer) for start, answer in rows)
    ids = torch.full((len(rows), longest), tokenizer.pad_token_id)
    labels = torch.full((len(rows), longest), -100)
    for number, (start, answer) in enumerate(rows):
        ids[number, : len(start) + len(answer)] = torch.tensor(start + answer)
        labels[number, len(start) : len(start) + len(answer)] = torch.tensor(answer)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=512, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    learn(model, ids, labels)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main(sys.argv[1])
