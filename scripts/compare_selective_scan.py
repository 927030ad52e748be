#!/usr/bin/env python3
"""Times mambify's selective_scan beside mamba-ssm's CUDA kernel, in one run on the same GPU.

Both compute the recurrence of Mamba-1 in bf16 with fp32 states: softplus of dt plus its bias
inside, the skip connection D inside, no gate z, gradients of all of these. mamba-ssm's is called as
its autograd function does (selective_scan_cuda.fwd and .bwd), on its own layout (batch, channels,
length), B and C in as many groups as the larger of the two has. Ours comes from
build/bench/training_kernels_bench. Forward keeps what the backward pass needs. Medians of times on
the device; GB/s are those of the bytes that must be read and written at least once, the same for
both. Needs PyTorch and mamba-ssm's extension selective_scan_cuda.
"""

import argparse
import re
import subprocess

import torch
from gpu_timing import milliseconds

import selective_scan_cuda  # behind torch, whose libraries it needs

# Groups of B and of C by the other sizes: documents, length, channels, states.
GROUPS = {(8, 2048, 5120, 16): (1, 1), (64, 512, 576, 64): (3, 9), (8, 2048, 4096, 128): (8, 32)}


def gigabytes(documents, length, channels, states):
    """Forward: x, dt, B, C and y; backward: the same but y, dy, and the gradients of the four."""
    of_channels = 2e-9 * documents * length * channels
    groups = sum(GROUPS[documents, length, channels, states])
    of_states = 2e-9 * documents * length * groups * states
    return 3 * of_channels + of_states, 5 * of_channels + 2 * of_states


def mambify(bench):
    """Milliseconds forward and backward by sizes, as the benchmark prints microseconds."""
    times, sizes = {}, None
    for line in subprocess.check_output([bench, "selective_scan"], text=True).splitlines():
        heading = re.match(
            r"selective_scan, (\d+) x (\d+) tokens, (\d+) channels, (\d+) states", line
        )
        row = re.match(r"  (forward, keeping states|backward) +([\d.]+)", line)
        if heading:
            sizes = tuple(map(int, heading.groups()))
            times[sizes] = {}
        elif row:
            times[sizes][row[1].split(",")[0]] = float(row[2]) / 1000
    return {sizes: (both["forward"], both["backward"]) for sizes, both in times.items()}


def mamba_ssm(documents, length, channels, states):
    def random(*shape, dtype=torch.bfloat16):
        return torch.randn(shape, device="cuda", dtype=dtype)

    groups = max(GROUPS[documents, length, channels, states])
    x, dy = (random(documents, channels, length) for _ in range(2))
    dt = random(documents, channels, length) - 3
    B, C = (random(documents, groups, states, length) for _ in range(2))
    A = -torch.rand(channels, states, device="cuda") - 0.1
    D, dt_bias = (random(channels, dtype=torch.float) for _ in range(2))

    def forward():
        return selective_scan_cuda.fwd(x, dt, A, B, C, D, None, dt_bias, True)

    checkpoints = forward()[1]
    other = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")

    def backward():
        selective_scan_cuda.bwd(
            x, dt, A, B, C, D, None, dt_bias, dy, checkpoints, None, None, True, False
        )

    return milliseconds(forward, other.zero_), milliseconds(backward, other.zero_)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bench", default="build/bench/training_kernels_bench")
    arguments = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, bf16")
    print(
        f"{'tokens, channels, states':28} {'program':10} {'forward ms':>10} {'GB/s':>6} "
        f"{'backward ms':>11} {'GB/s':>6} {'both ms':>8} {'GB/s':>6} {'ratio':>6}"
    )
    for sizes, ours in mambify(arguments.bench).items():
        theirs = mamba_ssm(*sizes)
        name = "{} x {}, {}, {}".format(*sizes)
        forward, backward = gigabytes(*sizes)
        for program, times in (("mambify", ours), ("mamba-ssm", theirs)):
            both = sum(times)
            print(
                f"{name:28} {program:10} {times[0]:10.3f} {1000 * forward / times[0]:6.0f} "
                f"{times[1]:11.3f} {1000 * backward / times[1]:6.0f} {both:8.3f} "
                f"{1000 * (forward + backward) / both:6.0f} {both / sum(ours):6.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
