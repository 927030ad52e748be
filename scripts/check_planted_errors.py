#!/usr/bin/env python3
"""Plants errors that speculative decoding must not have and shows that the tests catch each.

Every error is one replacement in a copy of the sources. The tests named beside it must pass before
it is planted and fail after; ends with 1 when an error goes unnoticed.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
from dataclasses import dataclass


@dataclass
class Planted:
    name: str
    file: str
    right: str
    wrong: str
    tests: str  # of test_decode, a GoogleTest filter


ERRORS = [
    Planted(
        "one input too many is committed",
        "src/model/context.cpp",
        "  certain[row] += count;",
        "  certain[row] += std::min(count + 1, drafts(row));",
        "Models/ScriptedSpeculation.RightAndWrongGuesses*",
    ),
    Planted(
        "the convolution window is that behind the drafts",
        "src/kernels/causal_conv1d/reference.cpp",
        "const int64_t length = p.commits ? p.commits[d] : p.starts[d + 1] - p.starts[d];\n"
        "    for (int64_t c = 0; c < p.channels; ++c) {\n      // Ascending",
        "const int64_t length = p.starts[d + 1] - p.starts[d];\n"
        "    for (int64_t c = 0; c < p.channels; ++c) {\n      // Ascending",
        "Models/ScriptedSpeculation.RightAndWrongGuesses*",
    ),
    Planted(
        "the order of a product's sum depends on the number of rows",
        "src/model/projection.cpp",
        "  const at::Tensor y = rows_linear(x, *matrix);",
        "  const at::Tensor y = x.size(0) > 4 ? at::linear(x, weight) : rows_linear(x, *matrix);",
        "Models/ScriptedSpeculation.RightAndWrongGuesses*fp32",
    ),
    Planted(
        "the split of the attention's cache depends on the batch",
        "src/kernels/decode_attention/cpu.cpp",
        "begin < p.lengths[sequence]; begin += kBlock) {\n"
        "    const int64_t positions = std::min(kBlock, ",
        "begin < p.lengths[sequence];\n"
        "       begin += p.sequences > 2 ? kBlock / 4 : kBlock) {\n"
        "    const int64_t positions = std::min(p.sequences > 2 ? kBlock / 4 : kBlock, ",
        "Models/ScriptedSpeculation.RightAndWrongGuesses*",
    ),
    Planted(
        "a rejected guess is redrawn from the target, not from what it has above the draft",
        "src/decode/token_distribution.cpp",
        "p.above(q).at(",
        "p.at(",
        "*Distribution*Guesses*",
    ),
    Planted(
        "a draft ends by what it has drawn, not by how certain it is of its likeliest token",
        "src/decode/model_drafter.cpp",
        "      if (!is_certain(requests[i], next, certainties_[i])) return;\n"
        "      const TokenDraw& draw = draws[n];\n"
        "      drawn[n] = sample_token(next, draw.sampling, draw.sequence, draw.position, scores.tokens());\n",
        "      const TokenDraw& draw = draws[n];\n"
        "      const TokenId token =\n"
        "          sample_token(next, draw.sampling, draw.sequence, draw.position, scores.tokens());\n"
        "      if (requests[i].min_probability > 0 && next[token] < std::ranges::max(next)) return;\n"
        "      drawn[n] = token;\n",
        "*Distribution*Certain*",
    ),
]


def build(tree):
    subprocess.run(
        ["ninja", "-C", tree / "build", "tests/decode/test_decode"], check=True, stdout=subprocess.DEVNULL
    )


def failures(tree, tests):
    """The tests that fail, of those the filter names."""
    output = subprocess.run(
        [tree / "build/tests/decode/test_decode", f"--gtest_filter={tests}", "--gtest_brief=1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    ).stdout
    failed = [line.split("]")[1].split(",")[0].split("(")[0].strip()
              for line in output.splitlines() if line.startswith("[  FAILED  ]") and "(" in line]
    if not failed and "[  PASSED  ]" not in output:
        sys.exit(f"the tests {tests} did not run to their end:\n{output}")
    return failed


def copy_sources(source, tree):
    """A copy whose unchanged files keep their times, so that a second run builds little."""
    files = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=source, check=True, stdout=subprocess.PIPE, text=True)
    for name in files.stdout.splitlines():
        target = tree / name
        if not target.exists() or target.read_bytes() != (source / name).read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, target)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tree", type=pathlib.Path, default="build-planted", help="where to copy to")
    tree = parser.parse_args().tree.resolve()
    source = pathlib.Path(__file__).resolve().parent.parent
    tree.mkdir(exist_ok=True)
    copy_sources(source, tree)
    if not (tree / ".venv").exists():
        os.symlink(source / ".venv", tree / ".venv")
    subprocess.run(["cmake", "--preset", "cpu-release"], cwd=tree, check=True, stdout=subprocess.DEVNULL)

    build(tree)
    for tests in dict.fromkeys(error.tests for error in ERRORS):
        if failed := failures(tree, tests):
            sys.exit(f"without any planted error these fail: {', '.join(failed)}")

    unnoticed = 0
    print("| planted error | tests that fail |\n|---|---|", flush=True)
    for error in ERRORS:
        file = tree / error.file
        text = file.read_text()
        if text.count(error.right) != 1:
            sys.exit(f"{error.file} holds {text.count(error.right)} times, not once:\n{error.right}")
        file.write_text(text.replace(error.right, error.wrong))
        try:
            build(tree)
            failed = failures(tree, error.tests)
        finally:
            file.write_text(text)
        unnoticed += not failed
        print(f"| {error.name} | {len(failed)}: {', '.join(failed)} |", flush=True)
    sys.exit(1 if unnoticed else 0)


if __name__ == "__main__":
    main()
