"""Run every benchmark of this folder, print one table and write bench/out/results.json.

    python -m bench [NAME …]

A benchmark is a file with `run() -> list[dict]`; each dict has name, value, unit, floor and ratio.
"""

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
    # Here and not above: worker processes read this file again when they start.
    from rich.console import Console
    from rich.table import Table

    machine = describe_machine()
    results: list[dict[str, Any]] = []
    for path in sorted(FOLDER.glob("[a-z]*.py")):
        benchmark = importlib.import_module(f"bench.{path.stem}")
        if hasattr(benchmark, "run") and path.stem in (names or [path.stem]):
            print(f"{path.stem} …", file=sys.stderr)
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
