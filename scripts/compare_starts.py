#!/usr/bin/env python3
"""What the start from attention and the stage `align` bring, at equal time.

Distills four students from one teacher on the same text for the same time: projections copied from
attention or drawn at random, with a first share of the time for `align` or without. Prints a
Markdown table of KL, top-1 agreement and greedy match on held-out text and of perplexity on a plain
text, the teacher's beside it.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

STAGE = """
[[stage]]
kind = "{kind}"
minutes = {minutes}
batch_tokens = 512
train = "mixers"
learning_rate = {rate}
warmup = 0.1
"""

RECIPE = """
[model]
teacher = {teacher}
keep_attention = {keep}
init = "{init}"

[data]
files = [{data}]
sequence_length = 512
{stages}
[run]
dir = {dir}
checkpoint_every = 0
"""


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mambify", default="build/mambify", help="the program")
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--data", required=True, help="JSON lines to train on")
    parser.add_argument("--held-out", required=True, help="JSON lines to measure on")
    parser.add_argument("--text-file", required=True, help="plain text for the perplexity")
    parser.add_argument("--max-windows", type=int, default=24, help="of 1,024 tokens of that text")
    parser.add_argument("--out", default="runs/starts", help="folder of the runs; must be new")
    parser.add_argument("--keep-attention", default="23/30")
    parser.add_argument("--minutes", type=float, default=3, help="of training for each student")
    parser.add_argument("--align-share", type=float, default=0.25, help="of that time")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def run(arguments, *command):
    """The one JSON object that a verb prints."""
    command = [arguments.mambify, *map(str, command), "--threads", str(arguments.threads), "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def train(arguments, folder, init, align):
    """Runs one recipe; returns the student's folder and the tokens that it saw."""
    stages = ""
    if align:
        minutes = arguments.minutes * arguments.align_share
        stages += STAGE.format(kind="align", minutes=minutes, rate="1e-2")
    minutes = arguments.minutes * (1 - arguments.align_share if align else 1)
    stages += STAGE.format(kind="distill", minutes=minutes, rate="1e-3")
    recipe = folder.with_suffix(".toml")
    recipe.write_text(
        RECIPE.format(
            teacher=json.dumps(arguments.teacher),
            keep=json.dumps(arguments.keep_attention),
            init=init,
            data=json.dumps(arguments.data),
            stages=stages,
            dir=json.dumps(str(folder)),
        )
    )
    command = [arguments.mambify, "distill", recipe, "--threads", str(arguments.threads)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    last = (folder / "metrics.jsonl").read_text().splitlines()[-1]
    return folder / "final", json.loads(last)["tokens"]


def perplexity(arguments, model):
    return run(
        arguments, "eval", "perplexity", "--model", model, "--text-file", arguments.text_file,
        "--max-windows", arguments.max_windows,
    )["perplexity"]  # fmt: skip


def main():
    arguments = parse_arguments()
    out = Path(arguments.out)
    out.mkdir(parents=True)
    rows = [
        "| start | `align` | tokens seen | KL | top-1 | greedy match | perplexity |",
        "|---|---|---|---|---|---|---|",
        f"| the teacher | | | 0 | 1 | 64 | {perplexity(arguments, arguments.teacher):.2f} |",
    ]
    for init in ("attention", "random"):
        for align in (True, False):
            name = f"{init}-{'align' if align else 'no-align'}"
            print(f"{name}: {arguments.minutes:g} minutes", file=sys.stderr)
            student, tokens = train(arguments, out / name, init, align)
            close = run(
                arguments, "eval", "agreement", "--model", student, "--teacher", arguments.teacher,
                "--data", arguments.held_out,
            )  # fmt: skip
            rows.append(
                f"| {init} | {'yes' if align else 'no'} | {tokens:,} | {close['kl']:.3f} "
                f"| {close['top1']:.3f} | {close['greedy_match']:.1f} "
                f"| {perplexity(arguments, student):.2f} |"
            )
            print(rows[-1], file=sys.stderr)
    print("\n".join(rows))


if __name__ == "__main__":
    main()
