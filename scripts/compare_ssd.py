#!/usr/bin/env python3
"""Times what bench/ssd_bench.cu times as other programs compute it, on the same GPU.

mamba-ssm's Triton kernels (x and B repeated for every head beforehand, as they need them) and, for
scale, PyTorch's flash attention over the same documents, heads and widths. Forward, and forward and
backward, in bf16, medians in milliseconds. Needs PyTorch, and mamba-ssm on the Python path (its
folder mamba_ssm/ops/triton is all that is used; mamba_ssm/__init__.py may be empty).
"""

import torch
from gpu_timing import milliseconds
from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined

# name, batch, length, heads, head_dim, d_state, groups of x, of B, of C
SHAPES = [
    ("8B layer", 4, 2048, 32, 128, 128, 8, 8, 32),
    ("135M layer", 16, 2048, 9, 64, 64, 3, 3, 9),
    ("Mamba-2 370M", 4, 2048, 32, 64, 128, 32, 1, 1),
]


def both_passes(function, inputs):
    """Times of function's forward pass, and of both."""
    output = function()
    gradient = torch.randn_like(output)

    def forward():
        with torch.no_grad():
            function()

    def forward_and_backward():
        torch.autograd.grad(function(), inputs, gradient)

    return milliseconds(forward), milliseconds(forward_and_backward)


def random(*sizes, dtype=torch.bfloat16):
    return torch.randn(sizes, device="cuda", dtype=dtype).requires_grad_()


def mamba(batch, length, heads, head_dim, d_state, x_groups, b_groups, c_groups):
    groups = max(b_groups, c_groups)
    x = random(batch, length, heads, head_dim)
    B, C = random(batch, length, groups, d_state), random(batch, length, groups, d_state)
    dt = (random(batch, length, heads) - 4).detach().requires_grad_()
    A = (-torch.rand(heads, device="cuda") * 2).requires_grad_()
    D, dt_bias = random(heads, dtype=torch.float), random(heads, dtype=torch.float)
    return both_passes(
        lambda: mamba_chunk_scan_combined(
            x, dt, A, B, C, chunk_size=256, D=D, dt_bias=dt_bias, dt_softplus=True
        ),
        (x, dt, A, B, C, D, dt_bias),
    )


def attention(batch, length, heads, head_dim, d_state, x_groups, b_groups, c_groups):
    q = random(batch, heads, length, head_dim)
    k, v = random(batch, x_groups, length, head_dim), random(batch, x_groups, length, head_dim)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
        return both_passes(
            lambda: torch.nn.functional.scaled_dot_product_attention(
                q, k, v, is_causal=True, enable_gqa=x_groups != heads
            ),
            (q, k, v),
        )


def main():
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, bf16")
    print(f"{'layer':14} {'program':16} {'forward ms':>10} {'both ms':>8}")
    for name, *sizes in SHAPES:
        for program, run in (("mamba-ssm", mamba), ("flash attention", attention)):
            forward, both = run(*sizes)
            print(f"{name:14} {program:16} {forward:10.3f} {both:8.3f}", flush=True)


if __name__ == "__main__":
    main()
