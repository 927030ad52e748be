#!/usr/bin/env python3
"""Prints tables of decoding and of reading prompts, in Markdown: models of given shapes with random
weights, on a CUDA device.

    scripts/decoding_tables.py bench/shapes/llama-3-8b.toml bench/shapes/llama-3-8b-mamba2-50.toml
"""
import argparse
import json
import pathlib
import subprocess
import sys


def numbers(text):
    return [int(part) for part in text.split(",")]


def run(program, verb, shape, options, arguments):
    command = [program, "bench", verb, "--shape", str(shape), "--json", "--device",
               arguments.device, "--dtype", arguments.dtype, *options]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{result.stderr}")
    return json.loads(result.stdout)


def short(count):
    return f"{count // 1024}k" if count % 1024 == 0 else str(count)


def table(head, rows):
    print("| " + " | ".join(head) + " |")
    print("|---" * len(head) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def cell_text(cell):
    if "error" in cell:
        return cell["error"]
    return f"{cell['decode_tokens_per_second']:,.0f} ({cell['memory_bytes'] / 1e9:.1f} GB)"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("shapes", nargs="+", type=pathlib.Path)
    parser.add_argument("--program", default="build/mambify")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--batches", default="1,8,32,64")
    parser.add_argument("--contexts", default="2048,32768,131072")
    parser.add_argument("--prompts", default="2048,8192,32768", help="lengths; none: \"\"")
    parser.add_argument("--tokens", default="32", help="decoded in a run")
    parser.add_argument("--runs", default="3")
    arguments = parser.parse_args()

    decoding, reading, machine = [], [], ""
    for shape in arguments.shapes:
        found = run(arguments.program, "decode", shape,
                    ["--random-context", "--batches", arguments.batches, "--contexts",
                     arguments.contexts, "--tokens", arguments.tokens, "--runs", arguments.runs],
                    arguments)
        machine = found["machine"]
        by_context = {}
        for cell in found["cells"]:
            by_context.setdefault(cell["context"], []).append(cell_text(cell))
        decoding += [[shape.stem, short(context), *cells] for context, cells in by_context.items()]
        if arguments.prompts:
            found = run(arguments.program, "prefill", shape,
                        ["--lengths", arguments.prompts, "--runs", arguments.runs], arguments)
            reading.append([shape.stem] + [
                f"{prompt['prefill_tokens_per_second']:,.0f} "
                f"({prompt['seconds_to_first_token'] * 1e3:,.0f} ms, "
                f"{100 * prompt['fraction_of_gemm_rate']:.0f} %)" for prompt in found["prompts"]])

    print(f"Decoding on {machine}, {arguments.dtype}: tokens/s (memory)\n")
    table(["model", "context"] + [f"batch {n}" for n in numbers(arguments.batches)], decoding)
    if reading:
        print("Reading prompts: tokens/s (time to the first token, share of the measured rate of "
              "products)\n")
        table(["model"] + [short(n) for n in numbers(arguments.prompts)], reading)


if __name__ == "__main__":
    main()
