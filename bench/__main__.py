"""Run benchmarks of this folder, print one table and write bench/out/results.json.

    python -m bench [NAME …]

A benchmark is a file with `run() -> list[dict]`; each dict has name, value, unit, floor and ratio.
"""

import ast
import importlib
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


def main(names: list[str]) -> None:
    """Run the benchmarks named, or all."""
    about = list_benchmarks()
    if {"--help", "-h"} & set(names):
        print("python -m bench [NAME …] runs all of these, or those named:\n")
        for name, sentence in about.items():
            print(f"  {name:<12}{sentence}")
        return
    unknown = [name for name in names if name not in about]
    if unknown:
        print(f"There is no benchmark {unknown[0]}; there are {', '.join(about)}.", file=sys.stderr)
        sys.exit(2)
    # Here and not above: worker processes read this file again when they start.
    from rich.console import Console
    from rich.table import Table

    machine = describe_machine()
    results: list[dict[str, Any]] = []
    for name in about:
        if name in (names or about):
            print(f"{name} …", file=sys.stderr)
            benchmark = importlib.import_module(f"bench.{name}")
            results += [{**result, "machine": machine} for result in benchmark.run()]
    table = Table(title=machine)
    table.add_column("measured")
    for heading in ("value", "unit", "floor", "ratio"):
        table.add_column(heading, justify="left" if heading == "unit" else "right")
    for result in results:
        numbers = [f"{result[name]:,.4g}" for name in ("value", "floor", "ratio")]
        table.add_row(result["name"], numbers[0], result["unit"], *numbers[1:])
    Console().print(table)
    out = FOLDER / "out" / "results.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(results, indent=2) + "\n")


def list_benchmarks() -> dict[str, str]:
    """Each benchmark and what it measures, in a line; none is imported, which takes seconds."""
    about = {}
    for path in sorted(FOLDER.glob("[a-z]*.py")):
        read = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(part, ast.FunctionDef) and part.name == "run" for part in read.body):
            about[path.stem] = (ast.get_docstring(read) or "").split("\n")[0]
    return about


def describe_machine() -> str:
    """Processor, cores, memory, system and Python."""
    processor = platform.processor() or platform.machine()
    for line in _read_lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            processor = line.split(":", 1)[1].strip()
    cores = os.cpu_count()
    memory = next((line.split()[1] for line in _read_lines("/proc/meminfo")), None)
    size = f", {int(memory) / 2**20:.0f} GiB" if memory else ""
    system = f"{platform.system()}, Python {platform.python_version()}"
    return f"{processor}, {cores} cores{size}, {system}"


def _read_lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


if __name__ == "__main__":
    main(sys.argv[1:])
