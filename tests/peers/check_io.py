"""Compares what mambify reads and writes with the formats' own Python libraries.

    python tests/peers/check_io.py BUILD/tests/peers/dump_tensors [MODEL.gguf]

Needs a Python with numpy, gguf and safetensors; dump_tensors is the build target of that name.
Ends with 1 when a value differs.
"""

import pathlib
import subprocess
import sys
import tempfile

import gguf
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

QUANTISED = [gguf.GGMLQuantizationType.Q4_0, gguf.GGMLQuantizationType.Q4_1,
             gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.BF16,
             gguf.GGMLQuantizationType.F16, gguf.GGMLQuantizationType.F32]


def dump(program, model, folder):
    """Our reading of `model`, as fp32, and the safetensors file that we wrote it to."""
    path = folder / "dump.safetensors"
    subprocess.run([program, model, path], check=True)
    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}


def compare(title, ours, theirs):
    """The number of tensors whose values differ (a NaN equals a NaN, -0 equals 0)."""
    wrong = sorted(set(ours) ^ set(theirs))
    for name in set(ours) & set(theirs):
        ours_, theirs_ = ours[name], theirs[name]
        if ours_.shape != theirs_.shape or not np.array_equal(ours_, theirs_, equal_nan=True):
            wrong.append(name)
    values = sum(tensor.size for tensor in theirs.values())
    print(f"{title}: {len(theirs)} tensors, {values} values, {len(wrong)} differ {wrong[:5]}")
    return len(wrong)


def read_with_gguf(path):
    tensors = {}
    for tensor in gguf.GGUFReader(path).tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        tensors[tensor.name] = values.reshape([int(size) for size in reversed(tensor.shape)])
    return tensors


def write_random_gguf(path):
    """One tensor of every type we read, with outliers, zeros and tiny values in it."""
    random = np.random.default_rng(5)
    writer = gguf.GGUFWriter(path, "llama")
    for kind in QUANTISED:
        values = random.standard_normal((7, 3, 96)).astype(np.float32)
        values[0] *= 1e4
        values[1] = 0
        values[2] *= 1e-6
        writer.add_tensor(kind.name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    program, models = sys.argv[1], sys.argv[2:]
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_random_gguf(folder / "random.gguf")
        for model in [folder / "random.gguf", *models]:
            wrong += compare(f"GGUF {model}", dump(program, model, folder), read_with_gguf(model))

        random = np.random.default_rng(6)
        tensors = {f"t{size}": random.standard_normal((size, 3)).astype(kind)
                   for size, kind in enumerate([np.float64, np.float32, np.float16], start=1)}
        tensors["scalar"] = np.array(2.5, dtype=np.float32)
        tensors["empty"] = np.zeros((0, 4), dtype=np.float32)
        save_file(tensors, folder / "theirs.safetensors", metadata={"format": "np"})
        expected = {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
        wrong += compare("safetensors", dump(program, folder / "theirs.safetensors", folder),
                         expected)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
