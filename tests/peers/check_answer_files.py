"""Reads answer files of `eval answers` as the judges of MT-Bench and AlpacaEval read them.

    python tests/peers/check_answer_files.py --questions question.jsonl --answers tiny.jsonl
    python tests/peers/check_answer_files.py --instructions set.json --answers model_outputs.json

MT-Bench: what fastchat/llm_judge takes from a line (common.py, load_model_answers and
run_judge_single; gen_judgment.py, check_data). AlpacaEval: pandas.read_json, one generator, and the
instructions of the reference in the same order (alpaca_eval/utils.py,
load_or_convert_to_dataframe; main.py, evaluate); needs pandas.
"""

import argparse
import json
import sys


def json_lines(path):
    with open(path) as file:
        return [json.loads(line) for line in file]


def check_mt_bench(questions, answers):
    by_id = {line["question_id"]: line for line in json_lines(answers)}
    for question in json_lines(questions):
        answer = by_id[question["question_id"]]
        turns = answer["choices"][0]["turns"]
        assert len(turns) == len(question["turns"]), answer["question_id"]
        assert all(isinstance(turn, str) for turn in turns)
        assert isinstance(answer["tstamp"], float)
        assert answer["answer_id"] and answer["model_id"]
    ids = list(by_id)
    assert ids == sorted(ids), "FastChat sorts by question_id"
    return len(by_id)


def check_alpaca(instructions, answers):
    import pandas

    outputs = pandas.read_json(answers)
    with open(instructions) as file:
        expected = [example["instruction"] for example in json.load(file)]
    assert outputs["instruction"].tolist() == expected
    assert len(outputs["generator"].unique()) == 1
    assert outputs["output"].str.len().notna().all()
    return len(outputs)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--questions", help="MT-Bench's question.jsonl")
    which.add_argument("--instructions", help="AlpacaEval's evaluation set")
    parser.add_argument("--answers", required=True)
    options = parser.parse_args()
    if options.questions:
        read = check_mt_bench(options.questions, options.answers)
    else:
        read = check_alpaca(options.instructions, options.answers)
    print(f"{read} answers read")
    return 0


if __name__ == "__main__":
    sys.exit(main())
