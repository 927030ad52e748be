"""Writes tests/fixtures/chat-mask-cases.json: which tokens transformers counts as the assistant's.

    python scripts/make_chat_masks.py tests/fixtures/llama3-style-tokenizer \\
        tests/fixtures/chat-mask-cases.json

apply_chat_template(return_assistant_tokens_mask=True) marks what a template writes between
{% generation %} and {% endgeneration %}: here, as in trl's training templates, a turn of the
assistant's with the token that ends it. Needs transformers and jinja2; no torch. The tokenizer gets
ChatML's two special tokens beside its own.
"""

import argparse
import json
import pathlib
import sys

import transformers

LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] | trim + '<|eot_id|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] | trim + '<|eot_id|>' }}{% endif %}{% endfor %}"
)
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
)
SMOLLM2 = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant "
    "named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}" + CHATML
)
SPECIAL = ["<|im_start|>", "<|im_end|>"]

CONVERSATIONS = [
    [("user", "Hi"), ("assistant", "Hello!")],
    [("system", "Be terse."), ("user", "Two?"), ("assistant", "2"), ("user", "Three?"),
     ("assistant", "It is 3.\nOr \"three\".")],
    [("user", "a"), ("assistant", "one two  three"), ("user", "b"), ("assistant", "caf\u00e9 \u4e16\u754c"),
     ("user", "c"), ("assistant", "\U0001f600 done"), ("user", "still waiting")],
    [("user", "the assistant said: assistant"), ("assistant", "assistant"),
     ("assistant", "and once more")],
    [("user", " spaces around "), ("assistant", " spaces around "), ("user", "\n\nlines\n"),
     ("assistant", "\n\nlines\n")],
    [("user", "nothing?"), ("assistant", ""), ("user", "again"), ("assistant", "x" * 40)],
    [("user", "no answer")],
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tokenizer", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    options = parser.parse_args()
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
    cases = []
    for kind, template in (("llama3", LLAMA3), ("chatml", CHATML), ("smollm2", SMOLLM2)):
        for turns in CONVERSATIONS:
            messages = [{"role": role, "content": content} for role, content in turns]
            found = tokenizer.apply_chat_template(
                messages, chat_template=template, tokenize=True, return_dict=True,
                return_assistant_tokens_mask=True,
            )
            cases.append({
                "kind": kind,
                "messages": messages,
                "ids": found["input_ids"],
                "assistant": found["assistant_masks"],
            })
    special = [{"content": token, "id": tokenizer.convert_tokens_to_ids(token)} for token in SPECIAL]
    lines = ",\n ".join(json.dumps(case) for case in cases)
    options.out.write_text(f'{{"special": {json.dumps(special)},\n"cases": [\n {lines}\n]}}\n')
    print(f"{len(cases)} cases, transformers {transformers.__version__}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
