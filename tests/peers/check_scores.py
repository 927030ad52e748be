"""Puts `mambify score` beside transformers on random checkpoints made on the fly.

    python tests/peers/check_scores.py --mambify build/mambify [--seeds 3]

Needs torch, transformers and safetensors. Exits 1 when any logit differs by more than the tolerance.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
import transformers
from safetensors.torch import load_file

TOLERANCE = 2e-4  # fp32 on both sides, logits of a few units

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def llama(**changes):
    settings = dict(
        vocab_size=211,
        hidden_size=96,
        intermediate_size=152,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
    )
    settings.update(changes)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings))


def mamba(**changes):
    settings = dict(
        vocab_size=211, hidden_size=64, state_size=16, num_hidden_layers=3, use_mambapy=False
    )
    settings.update(changes)
    return transformers.MambaForCausalLM(transformers.MambaConfig(**settings))


def mamba2(**changes):
    settings = dict(
        vocab_size=211,
        hidden_size=64,
        num_heads=8,
        head_dim=16,
        state_size=32,
        n_groups=2,
        num_hidden_layers=3,
        chunk_size=32,
    )
    settings.update(changes)
    return transformers.Mamba2ForCausalLM(transformers.Mamba2Config(**settings))


CASES = {
    "llama, grouped heads, tied": lambda: llama(),
    "llama, grouped heads, untied": lambda: llama(tie_word_embeddings=False),
    "llama, one key/value head": lambda: llama(num_key_value_heads=1),
    "llama, as many key/value heads": lambda: llama(num_key_value_heads=6),
    "llama, head width apart from width": lambda: llama(head_dim=24),
    "llama, attention biases": lambda: llama(attention_bias=True),
    "llama, eps 1e-3": lambda: llama(rms_norm_eps=1e-3),
    "llama, llama3 rope": lambda: llama(
        rope_parameters=LLAMA3_ROPE, max_position_embeddings=2048
    ),
    "mamba": lambda: mamba(),
    "mamba, untied, expand 1, state 8": lambda: mamba(
        tie_word_embeddings=False, expand=1, state_size=8
    ),
    "mamba2": lambda: mamba2(),
    "mamba2, one group, untied": lambda: mamba2(n_groups=1, tie_word_embeddings=False),
}


def randomise(model):
    """Weights away from their defaults, so that no norm, bias or D hides a mistake."""
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if name.endswith(("norm.weight", "norm_f.weight", ".D")) or "layernorm" in name:
                tensor.copy_(1 + 0.2 * torch.randn_like(tensor))
            elif name.endswith("A_log"):
                tensor.add_(0.1 * torch.randn_like(tensor))
            elif name.endswith("dt_bias"):
                tensor.copy_(torch.randn_like(tensor) - 2)
            elif name.endswith("bias"):
                tensor.copy_(0.2 * torch.randn_like(tensor))
            else:
                tensor.copy_(torch.randn_like(tensor) * tensor.shape[-1] ** -0.5)


def mambify_logits(program, folder, ids):
    ids_file, logits_file = folder / "ids.json", folder / "logits.out"
    ids_file.write_text(json.dumps(ids))
    subprocess.run(
        [program, "--quiet", "score", "--model", folder, "--ids-file", ids_file,
         "--logits-out", logits_file, "--json"],
        check=True,
        stdout=subprocess.PIPE,
    )
    return load_file(logits_file)["logits"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mambify", required=True)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()

    failed = 0
    for name, make in CASES.items():
        worst = 0.0
        for seed in range(options.seeds):
            torch.manual_seed(seed)
            model = make().eval()
            randomise(model)
            ids = torch.randint(0, model.config.vocab_size, (1, 67 + 60 * seed))
            with torch.no_grad():
                expected = model(ids).logits[0]
            with tempfile.TemporaryDirectory() as folder:
                model.save_pretrained(folder)
                found = mambify_logits(options.mambify, pathlib.Path(folder), ids[0].tolist())
            worst = max(worst, (found - expected).abs().max().item())
        verdict = "ok" if worst <= TOLERANCE else "FAILED"
        failed += verdict != "ok"
        print(f"{name:36} largest difference {worst:.2e}  {verdict}")
    print(f"{len(CASES) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
