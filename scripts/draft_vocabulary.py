#!/usr/bin/env python3
"""The most frequent tokens of a text, for a draft that was distilled without `draft_vocabulary`.

Counts what the assistant says in files of `mambify synthesize`, and all of plain text, each with
the token that ends it. Writes the file that `--draft-vocabulary` takes, or a draft's folder may
have.
"""

import argparse
import collections
import json
import subprocess
import tempfile


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mambify", default="build/mambify", help="the program")
    parser.add_argument("--model", required=True, help="whose tokenizer counts")
    parser.add_argument("--data", required=True, nargs="+", help="JSON lines that distill reads")
    parser.add_argument("--tokens", type=int, required=True, help="how many of them")
    parser.add_argument("--out", required=True, help="e.g. DRAFT/draft_vocabulary.json")
    return parser.parse_args()


def texts_of(path):
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            if not line.strip():
                continue
            example = json.loads(line)
            for message in example.get("messages") or []:
                if message["role"] == "assistant":
                    yield message["content"]
            if not example.get("messages"):
                yield example["text"]


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout


def main():
    arguments = parse_arguments()
    inspected = run(arguments.mambify, "inspect", arguments.model, "--json")
    end = json.loads(inspected)["tokenizer"]["eos"]
    counts = collections.Counter()
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".jsonl") as file:
        for path in arguments.data:
            for text in texts_of(path):
                file.write(json.dumps({"text": text + end["text"]}) + "\n")
        file.flush()
        lines = run(arguments.mambify, "tokenize", "--model", arguments.model, "--jsonl", file.name)
    for line in lines.splitlines():
        counts.update(json.loads(line)["ids"])
    counts[end["id"]] = counts.total()  # whatever the text, it is among them
    kept = [token for token, _ in counts.most_common(arguments.tokens)]
    del counts[end["id"]]
    share = sum(counts[token] for token in kept) / counts.total()
    with open(arguments.out, "w", encoding="utf-8") as out:
        out.write(json.dumps({"tokens": sorted(kept)}) + "\n")
    print(f"{arguments.out}: {len(kept)} of {len(counts) + 1} tokens that occur, "
          f"{share:.2%} of the text")


if __name__ == "__main__":
    main()
