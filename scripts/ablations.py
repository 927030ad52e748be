#!/usr/bin/env python3
"""What each choice of a recipe brings, at equal time: ablations of a distillation.

Each variant is the base recipe with one choice made otherwise, trained for as many minutes and
measured on the same held-out text. All of them are in one folder, one after the other, in as many
sittings as it takes: what is done is not done again by the next call with the same options, a
training that a sitting's end has cut short goes on from its last checkpoint. Prints a Markdown table
of what there is and writes it with all numbers to results.md and results.json in that folder. Ends
with 2 when something is left.

    scripts/ablations.py --teacher T.gguf --data train.jsonl --held-out held-out.jsonl \\
      --text-file text.txt --device cuda --minutes-each 4 --budget 9.5
"""

import argparse
import copy
import json
import sys
import tomllib
from pathlib import Path

from measuring import Sitting, TimeIsOver, add_arguments, check_files, with_error, write


# Variants: a name, what is compared, the choice, and how it changes a recipe. The stages of a
# recipe share --minutes-each in proportion to their own minutes.


def base(recipe, _):
    return recipe


def set_model(key, value):
    def change(recipe, _):
        recipe["model"][key] = value
        return recipe

    return change


def no_align(recipe, _):
    recipe["stage"] = [stage for stage in recipe["stage"] if stage["kind"] != "align"]
    return recipe


def random_start_no_align(recipe, arguments):
    return no_align(set_model("init", "random")(recipe, arguments), arguments)


def at_once(recipe, _):
    """The mixers learn for as long, all layers from the beginning."""
    for stage in recipe["stage"]:
        if stage["kind"] == "stepwise":
            stage["kind"] = "distill"
            stage["train"] = "mixers"
            stage.pop("keep_attention", None)
    return recipe


def set_stages(**keys):
    """Of the stages whose loss is that of the whole model."""

    def change(recipe, _):
        for stage in recipe["stage"]:
            if stage["kind"] != "align":
                stage.update(keys)
        return recipe

    return change


def chosen_layers(recipe, arguments):
    recipe["model"]["layer_choice"] = str(arguments.layer_choice)
    return recipe


def trains_all(recipe):
    stages = [stage for stage in recipe["stage"] if stage.get("train") == "all"]
    if not stages:
        sys.exit("ablations: no stage of the recipe has train = \"all\", which this one is about")
    return stages


def frozen_output(recipe, _):
    for stage in trains_all(recipe):
        stage["freeze"] = [*stage.get("freeze", []), "embedding"]
    return recipe


def untied_output(recipe, arguments):
    trains_all(recipe)
    return set_model("untie_output", True)(recipe, arguments)


def one_rate(recipe, _):
    for stage in trains_all(recipe):
        stage["learning_rate_rest"] = stage.get("learning_rate", 1e-3)
    return recipe


def another_seed(recipe, _):
    recipe.setdefault("run", {})["seed"] = recipe.get("run", {}).get("seed", 0) + 1
    return recipe


VARIANTS = {
    "base": ("base", "the recipe as it is", base),
    "seed": ("seed", "another: what differs by chance", another_seed),
    "random": ("start of projections", "random, not attention's", set_model("init", "random")),
    "no-align": ("`align`", "none", no_align),
    "random-no-align": ("both", "random start, no `align`", random_start_no_align),
    "at-once": ("stepwise", "all layers at once", at_once),
    "kl-ce": ("loss", "KL + CE, not KL alone", set_stages(kl_weight=1.0, ce_weight=1.0)),
    "chosen-layers": ("layers with attention", "by sensitivity, not even", chosen_layers),
    "neutral": ("start of the rest", "neutral", set_model("start", "neutral")),
    "published": ("start of the rest", "published", set_model("start", "published")),
    "rotary": ("rotary embedding", "kept", set_model("rotary", "keep")),
    "no-rotary": ("rotary embedding", "dropped", set_model("rotary", "drop")),
    "frozen-output": ("output matrix", "tied and frozen, not trained", frozen_output),
    "untied-output": ("output matrix", "untied and trained", untied_output),
    "one-rate": ("learning rates", "one, not one per group", one_rate),
}


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        epilog="Variants: " + ", ".join(VARIANTS) + ".",
    )
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--data", required=True, help="JSON lines to train on")
    parser.add_argument("--held-out", required=True, help="JSON lines to measure agreement on")
    parser.add_argument("--text-file", help="plain text to measure the perplexity on")
    parser.add_argument("--max-windows", type=int, default=24, help="of 1,024 tokens of that text")
    parser.add_argument("--max-tokens", type=int, default=0, help="of the held-out text (0: all)")
    parser.add_argument("--tasks", help="TOML list of tasks, as eval tasks takes it")
    parser.add_argument("--task-limit", type=int, default=0, help="items of each task (0: all)")
    parser.add_argument("--recipe", type=Path, default=Path("recipes/smollm2-gpu.toml"),
                        help="what is varied; each of its stages is limited in minutes")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE",
                        help="change the base recipe, as mambify distill --set does")
    parser.add_argument("--keep-attention", default="1/4", help="of the layers")
    parser.add_argument("--layer-choice", type=Path,
                        help="file of eval sensitivity for chosen-layers (default: measured first)")
    parser.add_argument("--only", help="variants, separated by commas (default: all)")
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"), help="folder of it all")
    parser.add_argument("--minutes-each", type=float, default=4, help="of training")
    parser.add_argument("--checkpoint-every", type=int, default=100,
                        help="steps: what a sitting's end may cost")
    add_arguments(parser)
    arguments = parser.parse_args()
    arguments.names = arguments.only.split(",") if arguments.only else list(VARIANTS)
    for name in arguments.names:
        if name not in VARIANTS:
            parser.error(f"--only: no variant is called {name}; there are {', '.join(VARIANTS)}")
    check_files(parser, arguments, ("teacher", "data", "held_out", "text_file", "tasks", "recipe",
                                    "layer_choice"))
    arguments.layers_given = arguments.layer_choice is not None
    arguments.names = [name for name in arguments.names if varies(arguments, name)]
    return arguments


# Recipes


def toml_value(text):
    """A value as --set takes it: TOML, or else a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def override(recipe, assignment):
    key, equals, text = assignment.partition("=")
    *sections, last = key.split(".")
    if not equals or not sections:
        sys.exit(f"--set {assignment}: expected SECTION.KEY=VALUE, such as stage.0.batch_tokens=512")
    table = recipe
    try:
        for section in sections:
            table = table[int(section) if isinstance(table, list) else section]
    except (KeyError, IndexError, ValueError):
        sys.exit(f"--set {assignment}: the recipe has no {'.'.join(sections)}")
    table[last] = toml_value(text)


def to_toml(recipe):
    """A recipe's values are strings, numbers, booleans and lists, which JSON writes as TOML does."""

    def keys(table):
        return [f"{key} = {json.dumps(value)}" for key, value in table.items()]

    lines = []
    for section in ("model", "data"):
        lines += [f"[{section}]", *keys(recipe[section]), ""]
    for stage in recipe["stage"]:
        lines += ["[[stage]]", *keys(stage), ""]
    return "\n".join([*lines, "[run]", *keys(recipe["run"]), ""])


def base_recipe(arguments):
    recipe = tomllib.loads(arguments.recipe.read_text())
    recipe["model"] |= {"teacher": arguments.teacher, "keep_attention": arguments.keep_attention}
    recipe["data"]["files"] = [arguments.data]
    recipe.setdefault("run", {})["checkpoint_every"] = arguments.checkpoint_every
    for assignment in arguments.set:
        override(recipe, assignment)
    for i, stage in enumerate(recipe["stage"]):
        if "minutes" not in stage:
            sys.exit(f"{arguments.recipe}: stage {i} has no minutes, by which time is shared out")
    return recipe


def varies(arguments, name):
    """Whether a variant is another recipe than the base, which may have made its choice already."""
    recipe = base_recipe(arguments)
    # What "auto" comes to for a student made from attention.
    is_mamba2 = recipe["model"].get("mixer", "mamba2") == "mamba2"
    recipe["model"].setdefault("start", "neutral" if is_mamba2 else "published")
    is_neutral = recipe["model"]["start"] == "neutral"
    recipe["model"].setdefault("rotary", "keep" if is_neutral else "drop")
    return name == "base" or VARIANTS[name][2](copy.deepcopy(recipe), arguments) != recipe


def variant_recipe(arguments, name):
    recipe = VARIANTS[name][2](copy.deepcopy(base_recipe(arguments)), arguments)
    total = sum(stage["minutes"] for stage in recipe["stage"])
    for stage in recipe["stage"]:
        stage["minutes"] = round(stage["minutes"] * arguments.minutes_each / total, 4)
    recipe["run"]["dir"] = str(arguments.out / name / "run")
    return to_toml(recipe)


# Running


def train(sitting, arguments, name):
    folder = arguments.out / name
    recipe, text = folder / "recipe.toml", variant_recipe(arguments, name)
    if recipe.exists() and recipe.read_text() != text:
        sys.exit(f"{recipe} was made with other options; give the same ones or another --out")
    if not recipe.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write(recipe, text.encode())
    if not (folder / "run" / "final").exists():
        sitting.run("distill", recipe, "--resume", "--device", arguments.device)
    last = (folder / "run" / "metrics.jsonl").read_text().splitlines()[-1]
    return folder / "run" / "final", json.loads(last)["tokens"]


def measure(sitting, arguments, folder, model, with_teacher):
    results = {}
    if with_teacher:
        results["agreement"] = sitting.result(
            folder / "agreement.json", "eval", "agreement", "--model", model,
            "--teacher", arguments.teacher, "--data", arguments.held_out,
            "--max-tokens", arguments.max_tokens,
        )  # fmt: skip
    if arguments.text_file:
        results["perplexity"] = sitting.result(
            folder / "perplexity.json", "eval", "perplexity", "--model", model,
            "--text-file", arguments.text_file, "--max-windows", arguments.max_windows,
        )  # fmt: skip
    if arguments.tasks:
        teacher = ["--teacher", arguments.teacher] if with_teacher else []
        results["tasks"] = sitting.result(
            folder / "tasks.json", "eval", "tasks", "--model", model,
            "--tasks", arguments.tasks, "--limit", arguments.task_limit, *teacher,
        )["tasks"]  # fmt: skip
    return results


def measure_layers(sitting, arguments):
    """The file that chosen-layers goes by, from a little of the text that is trained on."""
    if arguments.layers_given or "chosen-layers" not in arguments.names:
        return
    arguments.layer_choice = arguments.out / "layers.json"
    sitting.result(arguments.layer_choice, "eval", "sensitivity", "--teacher", arguments.teacher,
                   "--data", arguments.data)


def run_all(sitting, arguments, results):
    folder = arguments.out / "teacher"
    results["teacher"] = measure(sitting, arguments, folder, arguments.teacher, False)
    measure_layers(sitting, arguments)
    for name in arguments.names:
        print(f"{name}: {arguments.minutes_each:g} minutes", file=sys.stderr)
        model, tokens = train(sitting, arguments, name)
        folder = arguments.out / name
        results[name] = {"tokens": tokens} | measure(sitting, arguments, folder, model, True)


# Telling


def task_cells(result):
    cells = []
    for task in result.get("tasks", []):
        kept = task.get("paired", {}).get("acc", {}).get("kept")
        cells.append(with_error(task, "acc", 3) + ("" if kept is None else f", kept {kept:.2f}"))
    return cells


def table(arguments, results):
    tasks = [task["name"] for task in results.get("teacher", {}).get("tasks", [])]
    head = ["what", "choice", "tokens", "KL", "top-1", "greedy match"]
    head += ["perplexity"] if arguments.text_file else []
    head += [f"{task} acc" for task in tasks]
    rows = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, result in results.items():
        what, choice, _ = VARIANTS.get(name, ("the teacher", "", None))
        agreement = result.get("agreement")
        cells = [what, choice, f"{result['tokens']:,}" if "tokens" in result else ""]
        cells += [with_error(agreement, "kl", 3), with_error(agreement, "top1", 3),
                  with_error(agreement, "greedy_match", 1)] if agreement else ["", "", ""]
        if arguments.text_file:
            cells.append(with_error(result["perplexity"], "perplexity", 2))
        rows.append("| " + " | ".join(cells + task_cells(result)) + " |")
    return "\n".join(rows) + "\n"


def main():
    arguments = parse_arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = {}
    try:
        run_all(Sitting(arguments), arguments, results)
    except TimeIsOver:
        pass
    left = [name for name in arguments.names if name not in results]
    text = table(arguments, results)
    write(arguments.out / "results.md", text.encode())
    write(arguments.out / "results.json", (json.dumps(results, indent=2) + "\n").encode())
    print(text, end="")
    if left:
        print(f"left: {', '.join(left)}; the same command goes on", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
