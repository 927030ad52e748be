"""Puts `mambify eval tasks` beside lm-evaluation-harness, run on the same questions.

    python tests/peers/check_lm_eval.py --mambify build/mambify --model FOLDER --tasks tasks.toml \\
        [--limit 200] [--device cuda]

Every task of kind "choice" in the list is written as a task of lm-evaluation-harness, with its own
prompt, and scored by its Hugging Face model in fp32. Ends with 1 where an accuracy is further from
ours than lm-evaluation-harness's standard error. Needs lm-eval, torch and transformers; FOLDER is a
Hugging Face checkpoint with its tokenizer (`mambify convert --attention-fraction 1` writes one from
a GGUF file).
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import tomllib

import lm_eval
from lm_eval.tasks import TaskManager


def choice_tasks(path):
    """name, file and template of the tasks that both can do."""
    for task in tomllib.loads(path.read_text())["task"]:
        template = task.get("template", "{query} {choice}")
        before, found, after = template.partition("{choice}")
        if task["kind"] == "choice" and found and not after and before.endswith(" "):
            yield task["name"], path.parent / task["file"], before[:-1]


def write_task(folder, name, file, context, limit):
    items = [json.loads(line) for line in file.read_text().splitlines() if line.strip()]
    data = folder / f"{name}.jsonl"
    # The harness reads a query as it is; ours has no white space at its end.
    data.write_text("".join(
        json.dumps({**item, "context": context.replace("{query}", item["query"].rstrip())}) + "\n"
        for item in items[:limit]
    ))  # fmt: skip
    (folder / f"{name}.yaml").write_text(json.dumps({
        "task": f"peer_{name}",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{context}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{gold}}",
        "target_delimiter": " ",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }))  # fmt: skip


def harness(options, tasks):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for task in tasks:
            write_task(folder, *task, options.limit)
        found = lm_eval.simple_evaluate(
            model="hf",
            model_args={"pretrained": options.model, "dtype": "float32"},
            tasks=[f"peer_{task[0]}" for task in tasks],
            task_manager=TaskManager(include_path=str(folder), include_defaults=False),
            device=options.device,
            batch_size=options.batch,
            bootstrap_iters=0,
        )["results"]
    return {task[0]: found[f"peer_{task[0]}"] for task in tasks}


def ours(options):
    command = [options.mambify, "--quiet", "eval", "tasks", "--model", options.model, "--tasks",
               options.tasks, "--device", options.device, "--json"]
    command += ["--limit", str(options.limit)] if options.limit else []
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return {task["name"]: task for task in found["tasks"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mambify", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--tasks", required=True, type=pathlib.Path, help="TOML list of tasks")
    parser.add_argument("--limit", type=int, help="items of each task (default: all)")
    parser.add_argument("--batch", type=int, default=32, help="of lm-evaluation-harness")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()

    tasks = list(choice_tasks(options.tasks))
    theirs, found = harness(options, tasks), ours(options)
    passed = failed = 0
    for name, _, _ in tasks:
        for metric in ("acc", "acc_norm"):
            expected = theirs[name][f"{metric},none"]
            n = found[name]["n"]
            error = (expected * (1 - expected) / max(n - 1, 1)) ** 0.5
            agrees = abs(found[name][metric] - expected) <= error
            passed, failed = passed + agrees, failed + (not agrees)
            print(f"{name} {metric}: lm-eval {expected:.4f} ± {error:.4f}, mambify "
                  f"{found[name][metric]:.4f}, {n} items")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
