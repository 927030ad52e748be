#!/usr/bin/env python3
"""A teacher and its students side by side: closeness, perplexity, benchmarks, needle, speed.

Every measurement is the JSON of one verb, kept in a file of its own in a folder per model, so that
what is done is not done again by the next call with the same --out; several calls with --only may
share the work among devices. Prints Markdown tables of what there is, and writes them to results.md
and the page of `mambify eval report` to report.html in that folder. Ends with 2 when something is left.

    scripts/measure_students.py --teacher T.gguf --student half=runs/p/half quarter=runs/p/quarter \\
      --data own=held-out.jsonl --text-file text.txt --tasks recipes/tasks.toml --needle \\
      --speed --device cuda --dtype bf16
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from measuring import Sitting, TimeIsOver, add_arguments, check_files, with_error, write


def named(text):
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"{text}: expected NAME=PATH")
    if not Path(path).exists():
        raise argparse.ArgumentTypeError(f"{text}: {path} does not exist")
    return name, path


def numbers(text):
    return [int(part) for part in text.split(",")]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--student", type=named, nargs="+", required=True, metavar="NAME=PATH")
    parser.add_argument("--data", type=named, nargs="*", default=[], metavar="NAME=PATH",
                        help="JSON lines for eval agreement, unseen by the students")
    parser.add_argument("--greedy-prompts", type=int, default=32, help="continued greedily")
    parser.add_argument("--text-file", help="plain text for eval perplexity")
    parser.add_argument("--max-windows", type=int, default=0, help="of that text (0: all)")
    parser.add_argument("--tasks", nargs="*", default=[], help="TOML lists of tasks")
    parser.add_argument("--task-limit", type=int, default=0, help="items of each task (0: all)")
    parser.add_argument("--task-batch", type=int, default=256, help="answers side by side")
    parser.add_argument("--needle", action="store_true")
    parser.add_argument("--needle-lengths", help="default: by --training-length")
    parser.add_argument("--needle-trials", type=int, default=5)
    parser.add_argument("--training-length", type=int, default=512)
    parser.add_argument("--speed", action="store_true", help="of decoding; needs --device cuda")
    parser.add_argument("--contexts", default="2048,8192,32768", help="with --speed")
    parser.add_argument("--batches", default="1,64,256,1024,2048,4096", help="with --speed")
    parser.add_argument("--only", help="names of students or teacher, separated by commas")
    parser.add_argument("--out", type=Path, default=Path("runs/students"), help="folder of it all")
    add_arguments(parser)
    arguments = parser.parse_args()
    check_files(parser, arguments, ("teacher", "text_file"))
    if any(name == "teacher" for name, _ in arguments.student):
        parser.error("--student: the teacher has the name teacher")
    arguments.models = [("teacher", arguments.teacher), *arguments.student]
    names = [name for name, _ in arguments.models]
    arguments.only = arguments.only.split(",") if arguments.only else names
    for name in arguments.only:
        if name not in names:
            parser.error(f"--only: there is no {name} among {', '.join(names)}")
    return arguments


# Measuring


def measurements(arguments, name, path):
    """What there is to measure of a model: a file's name, and the verb with its options."""
    student, model = name != "teacher", ["--model", path]
    teacher = ["--teacher", arguments.teacher] if student else []
    for data, file in arguments.data if student else []:
        yield f"agreement-{data}", ["eval", "agreement", *model, *teacher, "--data", file,
                                    "--greedy-prompts", arguments.greedy_prompts]
    if arguments.text_file:
        yield "perplexity", ["eval", "perplexity", *model, "--text-file", arguments.text_file,
                             "--max-windows", arguments.max_windows]
    for tasks in arguments.tasks:
        yield f"tasks-{Path(tasks).stem}", ["eval", "tasks", *model, *teacher, "--tasks", tasks,
                                            "--limit", arguments.task_limit,
                                            "--batch", arguments.task_batch]
    if arguments.needle:
        lengths = arguments.needle_lengths
        yield "needle", ["eval", "needle", *model, "--likelihood", "--trials",
                         arguments.needle_trials, "--training-length", arguments.training_length,
                         *(["--lengths", lengths] if lengths else [])]
    if arguments.speed:
        yield "speed", ["bench", "decode", *model, "--random-context", "--tokens", 32, "--runs", 3,
                        "--contexts", arguments.contexts, "--batches", arguments.batches]
        for context in numbers(arguments.contexts):
            yield f"speculation-{context}", ["bench", "speculate", *model, "--context", context,
                                             "--draft-lengths", 4, "--runs", 3]


def measure_all(sitting, arguments):
    for name, path in arguments.models:
        for what, command in measurements(arguments, name, path) if name in arguments.only else []:
            sitting.result(arguments.out / name / f"{what}.json", *command)


def known(arguments):
    """All that is measured, as results[model][what], and whether something is left."""
    results, left = {}, []
    for name, path in arguments.models:
        results[name] = {}
        for what, _ in measurements(arguments, name, path):
            file = arguments.out / name / f"{what}.json"
            if file.exists():
                results[name][what] = json.loads(file.read_text())
            else:
                left.append(f"{name}/{what}")
    return results, left


# Telling


def markdown(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def closeness(results, data):
    head = ["model"]
    for name, _ in data:
        head += [f"KL, {name}", f"top-1, {name}", f"greedy match, {name}"]
    rows = []
    for name, result in results.items():
        row = [name]
        for text, _ in data:
            found = result.get(f"agreement-{text}")
            row += [with_error(found, "kl", 3), with_error(found, "top1", 3),
                    with_error(found, "greedy_match", 1)] if found else ["", "", ""]
        perplexity = result.get("perplexity")
        rows.append([*row, with_error(perplexity, "perplexity", 2) if perplexity else ""])
    return markdown([*head, "perplexity"], rows)


def task_cell(task, metric):
    kept = task.get("paired", {}).get(metric, {}).get("kept")
    interval = task.get("paired", {}).get(metric, {}).get("kept_interval")
    text = with_error(task, metric, 3)
    if kept is None or not interval:  # the teacher is not clearly above chance
        return text
    return f"{text}, kept {kept:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"


def tasks(results):
    """A row for each metric of each task, a column for each model."""
    cells = {}
    for name, result in results.items():
        for what in [key for key in result if key.startswith("tasks-")]:
            for task in result[what]["tasks"]:
                for metric in task["metrics"]:
                    cells.setdefault((task["name"], metric), {})[name] = task_cell(task, metric)
    rows = [[f"{task}, {metric}", *(row.get(name, "") for name in results)]
            for (task, metric), row in cells.items()]
    return markdown(["task", *results], rows) if rows else ""


def needle(results):
    rows, lengths = [], []
    for name, result in results.items():
        if "needle" not in result:
            continue
        lengths = result["needle"]["lengths"]
        row = [name]
        for length in lengths:
            of = [cell for cell in result["needle"]["cells"] if cell["length"] == length]
            row.append(f"{sum(c['hits'] for c in of)} of {sum(c['n'] for c in of)}")
        rows.append(row)
    return markdown(["pass key after", *(f"{length:,} tokens" for length in lengths)], rows)


def speed(results):
    """A row for each model: tokens/s alone, with 4 guesses of which each is right with probability
    0.8, and at the batch that makes most of them."""
    rows, contexts = [], []
    for name, result in results.items():
        if "speed" not in result:
            continue
        cells = [cell for cell in result["speed"]["cells"] if "error" not in cell]
        contexts = sorted({cell["context"] for cell in cells})
        row = [name]
        for context in contexts:
            of = [cell for cell in cells if cell["context"] == context]
            alone = [c["decode_tokens_per_second"] for c in of if c["batch"] == 1]
            most = max(of, key=lambda c: c["decode_tokens_per_second"])
            row.append(f"{alone[0]:,.0f}" if alone else "")
            guessed = result.get(f"speculation-{context}", {}).get("speculation")
            row.append(f"{guessed[0]['tokens_per_second']:,.0f}" if guessed else "")
            row.append(f"{most['decode_tokens_per_second']:,.0f} ({most['batch']})")
        rows.append(row)
    head = ["tokens/s behind"]
    for context in contexts:
        head += [f"{context:,}, alone", f"{context:,}, with guesses", f"{context:,}, most (batch)"]
    return markdown(head, rows)


def report(arguments, results):
    """The page that puts the evaluations side by side; speed has no place in it."""
    files = [arguments.out / name / f"{what}.json" for name, result in results.items()
             for what in result if not what.startswith(("speed", "speculation"))]
    if files:
        subprocess.run([arguments.mambify, "eval", "report", *files, "--out",
                        arguments.out / "report.html"], check=True)


def main():
    arguments = parse_arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    try:
        measure_all(Sitting(arguments), arguments)
    except TimeIsOver:
        pass
    results, left = known(arguments)
    parts = [closeness(results, arguments.data), tasks(results)]
    parts += [needle(results)] if arguments.needle else []
    parts += [speed(results)] if arguments.speed else []
    text = "\n".join(part for part in parts if part)
    write(arguments.out / "results.md", text.encode())
    print(text, end="")
    if left:
        print(f"left: {', '.join(left)}; the same command goes on", file=sys.stderr)
        sys.exit(2)
    report(arguments, results)


if __name__ == "__main__":
    main()
