"""Writes tests/fixtures/dpo-cases.json: the loss of direct preference optimisation in plain Python.

    python scripts/make_dpo_cases.py tests/fixtures/dpo-cases.json

The formula is that of Rafailov et al. 2023 (arXiv 2305.18290) with label smoothing, as trl's
DPOTrainer computes it with loss_type "sigmoid"; gradients are central differences in 60 digits.
"""

import argparse
import decimal
import json
import pathlib
import random
import sys

decimal.getcontext().prec = 60
Decimal = decimal.Decimal


def log_sigmoid(x):
    return -(1 + (-x).exp()).ln()


def pair_loss(student, reference, beta, smoothing):
    chosen, rejected = (beta * (s - r) for s, r in zip(student, reference))
    margin = chosen - rejected
    loss = -(1 - smoothing) * log_sigmoid(margin) - smoothing * log_sigmoid(-margin)
    return loss, chosen, rejected


def mean_loss(students, references, beta, smoothing):
    losses = [pair_loss(s, r, beta, smoothing)[0] for s, r in zip(students, references)]
    return sum(losses) / len(losses)


def gradient(students, references, beta, smoothing):
    step = Decimal("1e-20")
    result = []
    for pair in range(len(students)):
        row = []
        for side in range(2):
            moved = [list(s) for s in students]
            moved[pair][side] += step
            above = mean_loss(moved, references, beta, smoothing)
            moved[pair][side] -= 2 * step
            below = mean_loss(moved, references, beta, smoothing)
            row.append(float((above - below) / (2 * step)))
        result.append(row)
    return result


def make_case(seed, pairs, spread, beta, smoothing):
    numbers = random.Random(seed)

    def log_probs():
        base = [numbers.uniform(-300, -20) for _ in range(2)]
        return [base, [b + numbers.gauss(0, spread) for b in base]]

    drawn = [log_probs() for _ in range(pairs)]
    references = [[Decimal(x) for x in pair[0]] for pair in drawn]
    students = [[Decimal(x) for x in pair[1]] for pair in drawn]
    beta, smoothing = Decimal(str(beta)), Decimal(str(smoothing))
    rewards = [pair_loss(s, r, beta, smoothing)[1:] for s, r in zip(students, references)]
    return {
        "beta": float(beta),
        "label_smoothing": float(smoothing),
        "student": [[float(x) for x in pair] for pair in students],
        "reference": [[float(x) for x in pair] for pair in references],
        "loss": float(mean_loss(students, references, beta, smoothing)),
        "rewards": [[float(x) for x in pair] for pair in rewards],
        "gradient": gradient(students, references, beta, smoothing),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    options = parser.parse_args()
    cases = [
        make_case(seed=1, pairs=5, spread=4, beta=0.1, smoothing=0),
        make_case(seed=2, pairs=4, spread=20, beta=0.5, smoothing=0),
        make_case(seed=3, pairs=6, spread=4, beta=0.01, smoothing=0.1),
        make_case(seed=4, pairs=3, spread=40, beta=2, smoothing=0.3),
        make_case(seed=5, pairs=2, spread=0, beta=0.1, smoothing=0.5),
    ]
    options.out.write_text(json.dumps(cases, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
