"""Puts `mambify eval tasks` and `eval perplexity` beside transformers, item by item the same way.

    python tests/peers/check_tasks.py --mambify build/mambify --model FOLDER \\
        --items arc_easy.jsonl [--limit 50] [--text wikitext.txt] [--windows 2]

The multiple-choice score follows lm-evaluation-harness: context and continuation are encoded
together, the continuation's tokens are those after the context's own, acc_norm divides by the
choice's characters. Needs torch and transformers; FOLDER is a Hugging Face checkpoint with its
tokenizer (`mambify convert --attention-fraction 1` writes one from a GGUF file).
"""

import argparse
import json
import math
import pathlib
import subprocess
import sys
import tempfile

import torch
import transformers


def mambify(program, *arguments):
    done = subprocess.run(
        [program, "--quiet", *map(str, arguments), "--json"], check=True, stdout=subprocess.PIPE
    )
    return json.loads(done.stdout)


def log_likelihood(model, tokenizer, context, continuation):
    whole = tokenizer(context + continuation)["input_ids"]
    start = len(tokenizer(context)["input_ids"])
    with torch.no_grad():
        logits = model(torch.tensor([whole])).logits[0].float().log_softmax(-1)
    return sum(logits[t - 1, whole[t]].item() for t in range(start, len(whole)))


def choice_accuracy(model, tokenizer, items):
    right = right_norm = 0
    for item in items:
        context = item["query"].rstrip() + "\nAnswer:"
        scores = [log_likelihood(model, tokenizer, context, " " + c) for c in item["choices"]]
        norms = [score / len(c) for score, c in zip(scores, item["choices"])]
        right += scores.index(max(scores)) == item["gold"]
        right_norm += norms.index(max(norms)) == item["gold"]
    return right / len(items), right_norm / len(items)


def perplexity(model, tokenizer, text, window, windows):
    ids = tokenizer(text)["input_ids"]
    total = 0.0
    for w in range(windows):
        part = torch.tensor([ids[w * window : (w + 1) * window]])
        with torch.no_grad():
            total += model(part, labels=part).loss.item()
    return math.exp(total / windows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mambify", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--items", required=True, type=pathlib.Path)
    parser.add_argument("--limit", type=int, default=50)
    parser.add_argument("--text", type=pathlib.Path)
    parser.add_argument("--windows", type=int, default=2)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()

    model = transformers.AutoModelForCausalLM.from_pretrained(
        options.model, dtype=torch.float32
    ).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    lines = [line for line in options.items.read_text().splitlines() if line.strip()]
    items = [json.loads(line) for line in lines[: options.limit]]
    acc, acc_norm = choice_accuracy(model, tokenizer, items)
    with tempfile.TemporaryDirectory() as folder:
        tasks = pathlib.Path(folder) / "tasks.toml"
        tasks.write_text(
            "[[task]]\nname = 'items'\nkind = 'choice'\n"
            f"file = '{options.items.resolve()}'\ntemplate = \"{{query}}\\nAnswer: {{choice}}\"\n"
        )
        found = mambify(
            options.mambify, "eval", "tasks", "--model", options.model, "--tasks", tasks,
            "--limit", options.limit,
        )["tasks"][0]
    print(f"acc      transformers {acc:.4f}  mambify {found['acc']:.4f}")
    print(f"acc_norm transformers {acc_norm:.4f}  mambify {found['acc_norm']:.4f}")
    # one item may fall either way where two choices are equal but for rounding
    failed = max(abs(acc - found["acc"]), abs(acc_norm - found["acc_norm"])) * len(items) > 1.5

    if options.text:
        expected = perplexity(model, tokenizer, options.text.read_text(), 1024, options.windows)
        result = mambify(
            options.mambify, "eval", "perplexity", "--model", options.model, "--text-file",
            options.text, "--max-windows", options.windows,
        )["perplexity"]
        print(f"perplexity transformers {expected:.5f}  mambify {result:.5f}")
        failed = failed or abs(result / expected - 1) > 1e-4
    print("0 passed, 1 failed" if failed else "1 passed, 0 failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
