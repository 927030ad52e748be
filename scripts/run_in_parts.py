#!/usr/bin/env python3
"""Runs many long tests of a GoogleTest program, several at once, in as many sittings as it takes.

Every test is a process of its own on one core. What ended is written down, a line a test, and is not
run again by the next call with the same results file and the same program; what runs when the time is
over is stopped and stays to be run. Ends with counts, and with 1 when a test has failed or 2 when some
are left.
"""

import argparse
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import time


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program", help="the test program")
    parser.add_argument("--filter", default="*", help="as --gtest_filter")
    parser.add_argument("--results", type=pathlib.Path, required=True, help="what ended, a line a test")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="tests at once")
    parser.add_argument("--seconds", type=float, help="stop after this time (default: when all ran)")
    return parser.parse_args()


def tests_of(program, pattern):
    """Names as --gtest_filter takes them. Listed are suites, and their tests indented below each."""
    command = [program, "--gtest_list_tests", f"--gtest_filter={pattern}"]
    listed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    names, suite = [], ""
    for line in listed.splitlines():
        name = line.split("#")[0].rstrip()
        if name.startswith(" "):
            names.append(suite + name.strip())
        elif name.endswith("."):
            suite = name
    return names


class Running:
    """One test, and what it has printed."""

    def __init__(self, program, name):
        self.name = name
        self.start = time.monotonic()
        self.output = tempfile.TemporaryFile("w+")  # a pipe would hold up who prints more than fits
        self.process = subprocess.Popen(
            [program, f"--gtest_filter={name}"],
            stdout=self.output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def stop(self):
        self.process.kill()
        self.process.wait()

    def result(self):
        """passed, skipped or failed, seconds, name, and what the program said of the test."""
        seconds = time.monotonic() - self.start
        self.output.seek(0)
        output = self.output.read()
        outcome = "failed"
        if self.process.returncode == 0:
            outcome = "passed" if "[  PASSED  ] 1 test." in output else "skipped"
        if outcome == "failed":
            print(output, file=sys.stderr, flush=True)
        said = [line for line in output.splitlines() if " compared " in line]
        return "\t".join([outcome, f"{seconds:.1f}", self.name, *said])


def run(arguments, waiting, write_down):
    """Runs what is waiting, as long as there is time."""
    end = time.monotonic() + arguments.seconds if arguments.seconds else float("inf")
    running = []
    try:
        while (waiting or running) and time.monotonic() < end:
            while waiting and len(running) < arguments.jobs:
                running.append(Running(arguments.program, waiting.pop(0)))
            ended = [test for test in running if test.process.poll() is not None]
            for test in ended:
                running.remove(test)
                write_down(test.result())
            if not ended:
                time.sleep(0.05)
    finally:
        for test in running:
            test.stop()


def main():
    arguments = parse_arguments()
    names = tests_of(arguments.program, arguments.filter)
    version = hashlib.sha256(pathlib.Path(arguments.program).read_bytes()).hexdigest()[:12]
    arguments.results.touch()

    def outcomes():
        lines = [line.split("\t") for line in arguments.results.read_text().splitlines()]
        return {fields[3]: fields[1] for fields in lines if fields[0] == version}

    known = outcomes()
    with arguments.results.open("a") as results:
        run(arguments, [name for name in names if name not in known],
            lambda result: print(f"{version}\t{result}", file=results, flush=True))
    known = outcomes()
    counts = {outcome: sum(known.get(name) == outcome for name in names)
              for outcome in ("passed", "failed", "skipped")}
    left = len(names) - sum(counts.values())
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped, "
          f"{left} left of {len(names)}")
    sys.exit(1 if counts["failed"] else 2 if left else 0)


if __name__ == "__main__":
    main()
