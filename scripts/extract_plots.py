#!/usr/bin/env python3
"""Writes the plots of a page of mambify (eval report, a run's report.html) as SVG files, named after
their titles, for documents that cannot hold a page.

    scripts/extract_plots.py runs/students/report.html docs/plots
"""

import argparse
import html
import re
from pathlib import Path


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--match", default="", help="only plots with this in their titles")
    arguments = parser.parse_args()
    page = arguments.page.read_text()
    style = re.search(r"<style>.*?</style>", page, re.DOTALL).group(0)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for svg in re.findall(r"<svg .*?</svg>", page, re.DOTALL):
        title = html.unescape(re.search(r"<title>(.*?)</title>", svg, re.DOTALL).group(1))
        if arguments.match not in title:
            continue
        name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
        svg = svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" '
                          'font-family="sans-serif" width="460" ', 1)
        head, body = svg.split(">", 1)
        (arguments.folder / f"{name}.svg").write_text(f"{head}>{style}{body}\n")
        print(f"{arguments.folder / name}.svg")


if __name__ == "__main__":
    main()
