#!/usr/bin/env python3
"""Plain decoding speed beside other engines, on the same weights in one run.

Takes a GGUF checkpoint of a Llama, gives its dequantised weights to mambify (fp32, bf16, int8),
Hugging Face transformers (fp32, bf16) and llama-cpp-python (f32, bf16, q8_0), decodes greedily after
the same prompt with each, one engine after another, and prints the median tokens per second of
several runs.

Needs Python packages: torch transformers gguf llama-cpp-python.
"""

import argparse
import gc
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mambify", default="build/mambify", help="the program")
    parser.add_argument("--model", required=True, help="a GGUF file")
    parser.add_argument("--prompt", default="Once upon a time, in a village by the sea,")
    parser.add_argument("--tokens", type=int, default=64, help="tokens timed in a run")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--engines", default="transformers,llama.cpp", type=lambda text: text.split(","),
                        help="beside mambify, a list with commas; packages of others are not needed")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def dequantised_gguf(source, target, type_name):
    """Writes `source` with all matrices in another type; what is not a matrix becomes F32."""
    import gguf

    wanted = gguf.GGMLQuantizationType[type_name]
    reader = gguf.GGUFReader(source)
    architecture = reader.fields[gguf.Keys.General.ARCHITECTURE].contents()
    writer = gguf.GGUFWriter(target, architecture)
    for field in reader.fields.values():
        # The writer has its own header and has written the architecture; the file type would lie.
        if field.name.startswith("GGUF.") or field.name in (
            gguf.Keys.General.ARCHITECTURE,
            gguf.Keys.General.FILE_TYPE,
        ):
            continue
        kind = field.types[0]
        element = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=element)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        stored = wanted if len(tensor.shape) > 1 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(tensor.name, gguf.quants.quantize(values, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def run_mambify(arguments, dtype, weights="native"):
    """Rates of the runs, the prompt's ids and the new ids."""
    command = [arguments.mambify, "generate", "--model", arguments.model, "--json", "--ignore-eos"]
    command += ["--prompt", arguments.prompt, "--max-tokens", str(arguments.tokens + 1)]
    command += ["--dtype", dtype, "--weights", weights, "--threads", str(arguments.threads)]
    rates = []
    for _ in range(arguments.runs):
        output = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        rates.append(output["timing"]["decode_tokens_per_second"])
    return rates, output["prompt_ids"], output["ids"]


def run_transformers(arguments, folder, dtype, prompt_ids):
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(arguments.threads)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    rates = []
    with torch.inference_mode():
        for _ in range(arguments.runs):
            output = model(input_ids=torch.tensor([prompt_ids]), use_cache=True, logits_to_keep=1)
            ids = [int(output.logits[0, -1].argmax())]
            start = time.perf_counter()
            for _ in range(arguments.tokens):
                output = model(
                    input_ids=torch.tensor([ids[-1:]]),
                    past_key_values=output.past_key_values,
                    use_cache=True,
                )
                ids.append(int(output.logits[0, -1].argmax()))
            rates.append(arguments.tokens / (time.perf_counter() - start))
    return rates, ids


def run_llama_cpp(arguments, file, prompt_ids):
    from llama_cpp import Llama

    llama = Llama(
        str(file),
        n_ctx=len(prompt_ids) + arguments.tokens + 8,
        n_threads=arguments.threads,
        n_threads_batch=arguments.threads,
        verbose=False,
    )
    rates = []
    for _ in range(arguments.runs):
        ids = []
        stream = llama.generate(prompt_ids, temp=0.0, repeat_penalty=1.0, reset=True)
        ids.append(next(stream))
        start = time.perf_counter()
        while len(ids) <= arguments.tokens:
            ids.append(next(stream))
        rates.append(arguments.tokens / (time.perf_counter() - start))
        stream.close()
    llama.close()
    return rates, ids


def main():
    arguments = parse_arguments()
    rows = []

    def add(name, rates, ids):
        equal = 0
        while equal < min(len(ids), len(expected)) and ids[equal] == expected[equal]:
            equal += 1
        rows.append({"engine": name, "tokens_per_second": statistics.median(rates),
                     "equal_tokens": equal})
        gc.collect()

    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        rates, prompt_ids, expected = run_mambify(arguments, "fp32")
        add("mambify fp32", rates, expected)
        rates, _, ids = run_mambify(arguments, "bf16")
        add("mambify bf16", rates, ids)
        rates, _, ids = run_mambify(arguments, "fp32", "int8")
        add("mambify int8", rates, ids)

        if "transformers" in arguments.engines:
            folder = scratch / "hf"
            subprocess.run(
                [arguments.mambify, "--quiet", "convert", "--teacher", arguments.model, "--out",
                 str(folder), "--attention-fraction", "1"],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            add("transformers fp32", *run_transformers(arguments, folder, "float32", prompt_ids))
            add("transformers bf16", *run_transformers(arguments, folder, "bfloat16", prompt_ids))

        for type_name in ("F32", "BF16", "Q8_0") if "llama.cpp" in arguments.engines else ():
            file = scratch / f"{type_name}.gguf"
            dequantised_gguf(arguments.model, file, type_name)
            add(f"llama.cpp {type_name.lower()}", *run_llama_cpp(arguments, file, prompt_ids))

    if arguments.json:
        print(json.dumps({"threads": arguments.threads, "tokens": arguments.tokens,
                          "prompt_tokens": len(prompt_ids), "engines": rows}))
        return
    print(f"{arguments.tokens} tokens after {len(prompt_ids)}, {arguments.threads} threads, "
          f"median of {arguments.runs} runs\n")
    print("| engine | tokens/s | equal tokens |\n|---|---:|---:|")
    for row in rows:
        print(f"| {row['engine']} | {row['tokens_per_second']:.1f} "
              f"| {row['equal_tokens']} of {len(expected)} |")


if __name__ == "__main__":
    main()
