#!/usr/bin/env python3
"""Speculation on many prompts of a real model: every token must be that of plain decoding.

Decodes each prompt plainly, alone, then with every drafter, draft length and batch size asked for,
greedily and sampled, and counts prompts whose tokens differ. Ends with 1 when there is one. Prints
a Markdown table with the share of cycles with guesses, the share of guesses that became tokens, and
what that did to speed. With --by, prompts are decoded group by group, and with --runs again and
again, plainly and with guesses in turn: a speed-up is the median over runs, so that what a machine
does beside it disturbs both alike.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile

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
    parser.add_argument("--draft-vocabularies", type=words, default=[""],
                        help="of checkpoints: files of tokens to guess among, or all (default: their own)")
    parser.add_argument("--draft-lengths", type=words, default=["4"])
    parser.add_argument("--draft-min-p", help="of checkpoints, as generate takes it")
    parser.add_argument("--batches", type=words, default=["1", "8"])
    parser.add_argument("--dtypes", type=words, default=["fp32"])
    parser.add_argument("--sampling", type=words, default=["greedy", "top-p"], help=str(list(SAMPLING)))
    parser.add_argument("--max-tokens", default="256")
    parser.add_argument("--weights", default="native", help="native or int8")
    parser.add_argument("--threads", default="2")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--by", help="a key of the prompts' lines: also a row for each of its values")
    parser.add_argument("--runs", type=int, default=1, help="of everything, for the medians of speeds")
    return parser.parse_args()


def decode(arguments, prompts, dtype, sampling, batch, *draft):
    command = [arguments.mambify, "generate", "--model", arguments.model, "--chat", "--json"]
    command += ["--prompts", prompts, "--max-tokens", arguments.max_tokens]
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


def groups_of(arguments, folder):
    """Files of prompts: one for each value of --by in a folder, or all in one."""
    if not arguments.by:
        return {"all": arguments.prompts}
    lines = {}
    with open(arguments.prompts, encoding="utf-8") as prompts:
        for line in prompts:
            if line.strip():
                lines.setdefault(str(json.loads(line)[arguments.by]), []).append(line)
    files = {}
    for number, (name, group) in enumerate(lines.items()):
        files[name] = f"{folder}/{number}.jsonl"
        with open(files[name], "w", encoding="utf-8") as out:
            out.writelines(group)
    return files


class Case:
    """Results of a way to decode, group by group, and its seconds in each run."""

    def __init__(self, batch, options, draft="none", length=""):
        self.batch, self.options, self.draft, self.length = batch, options, draft, length
        self.results, self.seconds = {}, {}

    def add(self, group, results):
        self.results[group] = results
        self.seconds.setdefault(group, []).append(seconds(results))


def row(dtype, sampling, case, name, groups, plain, alone):
    """Prints one row and returns how many results differ. plain: of the same batch size."""
    results = [r for group in groups for r in case.results[group]]
    truth = [r for group in groups for r in alone.results[group]]
    wrong = sum(a["ids"] != b["ids"] for a, b in zip(results, truth, strict=True))
    total = {key: sum(r["speculation"][key] for r in results)
             for key in ("cycles", "drafting", "drafted", "accepted")}
    guessing = f"{total['drafting'] / total['cycles']:.2f}" if total["drafted"] else ""
    share = f"{total['accepted'] / total['drafted']:.2f}" if total["drafted"] else ""
    tokens = sum(len(r["ids"]) for r in results)
    runs = len(case.seconds[groups[0]])
    speed = statistics.median(
        sum(plain.seconds[group][run] for group in groups)
        / sum(case.seconds[group][run] for group in groups) for run in range(runs))
    print(f"| {dtype} | {sampling} | {case.draft} | {case.length} | {case.batch} | {name} "
          f"| {len(results)} | {tokens:,} | {wrong} | {guessing} | {share} | {speed:.2f}x |",
          flush=True)
    return wrong


def compare(arguments, groups, dtype, sampling):
    plain = {batch: Case(batch, []) for batch in dict.fromkeys(["1", *arguments.batches])}
    cases = [*plain.values()]
    for draft in arguments.drafts:
        vocabularies = [""] if draft == "ngram" else arguments.draft_vocabularies
        for vocabulary, length in itertools.product(vocabularies, arguments.draft_lengths):
            options = ["--draft", draft, "--draft-length", length]
            if vocabulary:
                options += ["--draft-vocabulary", vocabulary]
            if arguments.draft_min_p and draft != "ngram":
                options += ["--draft-min-p", arguments.draft_min_p]
            name = f"{draft}, {vocabulary}" if vocabulary else draft
            cases += [Case(batch, options, name, length) for batch in arguments.batches]
    for _ in range(arguments.runs):
        for group, prompts in groups.items():
            for case in cases:
                case.add(group, decode(arguments, prompts, dtype, sampling, case.batch,
                                       *case.options))
    different = 0
    names = list(groups)
    for case in cases:
        different += row(dtype, sampling, case, "all", names, plain[case.batch], plain["1"])
        for name in names if arguments.by else []:
            row(dtype, sampling, case, name, [name], plain[case.batch], plain["1"])
    return different


def main():
    arguments = parse_arguments()
    print("| dtype | sampling | draft | length | batch | prompts of | prompts | tokens | different "
          "| cycles with guesses | accepted | speed |\n|" + "---|" * 12, flush=True)
    different = 0
    with tempfile.TemporaryDirectory() as folder:
        groups = groups_of(arguments, folder)
        for dtype in arguments.dtypes:
            for sampling in arguments.sampling:
                different += compare(arguments, groups, dtype, sampling)
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
