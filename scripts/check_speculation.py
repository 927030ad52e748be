#!/usr/bin/env python3
"""Speculation on many prompts of a real model: every token must be that of plain decoding.

Decodes each prompt plainly, alone, then with every drafter, draft length and batch size asked for,
greedily and sampled, and counts prompts whose tokens differ. Ends with 1 when there is one. Prints
a Markdown table with the share of guesses that became tokens and what that did to speed.
"""

import argparse
import json
import subprocess
import sys

SAMPLING = {
    "greedy": [],
    "top-p": ["--temperature", "0.8", "--top-p", "0.95", "--seed", "5"],
    "top-k": ["--temperature", "1", "--top-k", "40", "--seed", "6"],
    "min-p": ["--temperature", "1.2", "--min-p", "0.05", "--seed", "7"],
}


def parse_arguments():
    def words(text):
        return text.split(",")

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mambify", default="build/mambify", help="the program")
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", required=True, help='JSON lines, {"prompt"} or {"messages"}')
    parser.add_argument("--drafts", type=words, default=["ngram"], help="ngram or checkpoints")
    parser.add_argument("--draft-lengths", type=words, default=["4"])
    parser.add_argument("--batches", type=words, default=["1", "8"])
    parser.add_argument("--dtypes", type=words, default=["fp32"])
    parser.add_argument("--sampling", type=words, default=["greedy", "top-p"], help=str(list(SAMPLING)))
    parser.add_argument("--max-tokens", default="256")
    parser.add_argument("--weights", default="native", help="native or int8")
    parser.add_argument("--threads", default="2")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--by", help="a key of the prompts' lines: also a row for each of its values")
    return parser.parse_args()


def decode(arguments, dtype, sampling, batch, *draft):
    command = [arguments.mambify, "generate", "--model", arguments.model, "--chat", "--json"]
    command += ["--prompts", arguments.prompts, "--max-tokens", arguments.max_tokens]
    command += ["--dtype", dtype, "--batch", batch, "--threads", arguments.threads]
    command += ["--weights", arguments.weights, "--device", arguments.device]
    command += [*SAMPLING[sampling], *draft]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    return [json.loads(line) for line in output.splitlines()]


def seconds(results):
    return sum(
        (len(r["ids"]) - 1) / r["timing"]["decode_tokens_per_second"]
        for r in results
        if len(r["ids"]) > 1
    )


def row(dtype, sampling, draft, length, batch, group, results, plain, alone):
    """Prints one row and returns how many results differ. plain: of the same batch size."""
    wrong = sum(a["ids"] != b["ids"] for a, b in zip(results, alone, strict=True))
    drafted = sum(r["speculation"]["drafted"] for r in results)
    accepted = sum(r["speculation"]["accepted"] for r in results)
    share = f"{accepted / drafted:.2f}" if drafted else ""
    tokens = sum(len(r["ids"]) for r in results)
    print(f"| {dtype} | {sampling} | {draft} | {length} | {batch} | {group} | {len(results)} "
          f"| {tokens:,} | {wrong} | {share} | {seconds(plain) / seconds(results):.2f}x |", flush=True)
    return wrong


def main():
    arguments = parse_arguments()
    groups = {"all": None}
    if arguments.by:
        with open(arguments.prompts, encoding="utf-8") as lines:
            keys = [json.loads(line)[arguments.by] for line in lines if line.strip()]
        groups |= {key: [i for i, k in enumerate(keys) if k == key] for key in dict.fromkeys(keys)}

    different = 0
    print("| dtype | sampling | draft | length | batch | prompts of | prompts | tokens | different "
          "| accepted | speed |\n|---|---|---|---|---|---|---|---|---|---|---|", flush=True)
    for dtype in arguments.dtypes:
        for sampling in arguments.sampling:
            plain = {batch: decode(arguments, dtype, sampling, batch)
                     for batch in dict.fromkeys(["1", *arguments.batches])}
            cases = [(batch, results, "none", "") for batch, results in plain.items()]
            for draft in arguments.drafts:
                for length in arguments.draft_lengths:
                    for batch in arguments.batches:
                        options = ["--draft", draft, "--draft-length", length]
                        results = decode(arguments, dtype, sampling, batch, *options)
                        cases.append((batch, results, draft, length))
            for batch, results, draft, length in cases:
                for group, members in groups.items():
                    def chosen(all_results, members=members):
                        return all_results if members is None else [all_results[i] for i in members]
                    wrong = row(dtype, sampling, draft, length, batch, group, chosen(results),
                                chosen(plain[batch]), chosen(plain["1"]))
                    different += wrong if members is None else 0
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
