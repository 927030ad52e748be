"""Puts the numbers that `eval tasks` reads from answers beside lm-evaluation-harness's expressions.

    python tests/peers/check_extraction.py --extract build/tests/peers/extract_answers

The expressions are those of lm_eval/tasks/gsm8k/gsm8k.yaml, version 3, applied as lm_eval's regex
filter (lm_eval/filters/extraction.py) and its exact_match (lm_eval/api/metrics.py) apply them: the
first strict match, the last flexible one, and what is left of it when the four ignored expressions
are gone. Texts are drawn from the characters that matter; needs Python alone.
"""

import argparse
import json
import random
import re
import subprocess
import sys

STRICT = re.compile(r"#### (\-?[0-9\.\,]+)")
FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
IGNORED = [",", r"\$", r"(?s).*#### ", r"\.$"]
PIECES = ["#### ", "####", "#", " ", "\n", "-", "$", ".", ",", "0", "7", "12", "1,000", "3.50",
          "a", "The answer is ", "é", "\u0663"]


def pick(matches, which):
    if not matches:
        return None
    match = matches[which]
    if isinstance(match, tuple):
        match = [m for m in match if m][0]
    return match.strip()


def compared(text):
    for expression in IGNORED:
        text = re.sub(expression, "", text)
    return text.lower()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--extract", required=True, help="the program extract_answers")
    parser.add_argument("--texts", type=int, default=200000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator = random.Random(options.seed)
    texts = ["".join(generator.choices(PIECES, k=generator.randint(0, 12)))
             for _ in range(options.texts)]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    done = subprocess.run([options.extract], input=lines, text=True, check=True,
                          stdout=subprocess.PIPE)
    failed = 0
    for text, line in zip(texts, done.stdout.splitlines(), strict=True):
        found = json.loads(line)
        flexible = pick(FLEXIBLE.findall(text), -1)
        expected = {
            "strict": pick(STRICT.findall(text), 0),
            "flexible": flexible,
            "compared": None if flexible is None else compared(flexible),
        }
        # The text as a gold answer, which is read without white space at its ends and, unlike by
        # Python, without its case. A number has no line break in it.
        gold = found.pop("gold").lower()
        if "\n" not in text.strip(" \n").split("#### ")[-1]:
            found["gold"], expected["gold"] = gold, compared(text.strip(" \n"))
        if found != expected:
            failed += 1
            if failed <= 5:
                print(f"{text!r}: expected {expected}, found {found}")
    print(f"{len(texts) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
