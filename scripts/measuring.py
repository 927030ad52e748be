"""What the scripts that measure many models share: verbs of mambify, each run once, in sittings."""

import json
import os
import subprocess
import sys
import time


class TimeIsOver(Exception):
    """The sitting has ended; what is done stays done."""


def add_arguments(parser, dtype="fp32"):
    parser.add_argument("--mambify", default="build/mambify", help="the program")
    parser.add_argument("--budget", type=float, help="stop after so many minutes (default: when "
                        "all is done)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default=dtype, help="of measuring")
    parser.add_argument("--threads", type=int)


def check_files(parser, arguments, options):
    for option in options:
        path = getattr(arguments, option)
        if path and not os.path.exists(path):
            parser.error(f"--{option.replace('_', '-')}: {path} does not exist")


def write(path, content):
    """The old content or the new, never half."""
    beside = path.with_name(path.name + ".new")
    beside.write_bytes(content)
    os.replace(beside, path)


def with_error(result, key, digits):
    """A number with its standard error, where there is one."""
    error = result.get(key + "_stderr")
    text = f"{result[key]:.{digits}f}"
    return text if error is None else f"{text} ± {error:.{digits}f}"


class Sitting:
    """Runs verbs until its time is over."""

    def __init__(self, arguments):
        self.arguments = arguments
        minutes = arguments.budget or float("inf")
        self.end = time.monotonic() + 60 * minutes

    def run(self, *command):
        """What a verb prints. Raises TimeIsOver where the sitting ends first."""
        command = [self.arguments.mambify, *map(str, command)]
        if self.arguments.threads:
            command += ["--threads", str(self.arguments.threads)]
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeIsOver
        try:
            timeout = None if left == float("inf") else left
            return subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=timeout).stdout
        except subprocess.TimeoutExpired:
            raise TimeIsOver from None
        except subprocess.CalledProcessError as error:
            sys.exit(f"exit code {error.returncode} of {' '.join(command)}")

    def result(self, file, *command):
        """The JSON that a verb prints, kept in a file so that it is measured once."""
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            write(file, self.run(*command, "--device", self.arguments.device, "--dtype",
                                 self.arguments.dtype, "--json"))
        return json.loads(file.read_text())
