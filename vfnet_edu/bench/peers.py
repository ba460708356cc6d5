"""How fast is all of it, beside what one would use instead?  `python -m vfnet_edu.bench peers`.

Every row runs in a process of its own, in which the contenders take turns: A B A B.  After a first round, which warms
up, the median of the others counts, and the fastest and the slowest are shown.  Memory is the most that a fresh process
takes for one turn, beyond what it holds before.

The page is made from the json, without measuring anything: `--json peers.json --page book/benchmarks.md`.
"""

import json
import os
import platform
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path

import tyro

from vfnet_edu.bench.rows import ROWS
from vfnet_edu.bench.sizes import QUICK, Sizes
from vfnet_edu.bench.turns import apart, compete, peak_megabytes
from vfnet_edu.runtime.errors import Exit, UserError
from vfnet_edu.runtime.files import write_atomically

PACKAGES = (
    "torch", "torchvision", "numpy", "msgspec", "opencv-python-headless", "pycocotools", "faster-coco-eval",
    "onnxruntime",
)  # fmt: skip
BEGIN, END = "<!-- peers: begin -->", "<!-- peers: end -->"  # around what `--page` writes


@dataclass(frozen=True)
class Options:
    rows: tuple[str, ...] = tuple(ROWS)
    """which rows to measure"""
    threads: tuple[int, ...] = (1, 2)
    """numbers of threads to try, where they matter"""
    repeats: int = 5
    """rounds that count"""
    memory: bool = True
    """also measure memory, each contender in a process of its own"""
    quick: bool = False
    """a trial of seconds: tiny sizes, whose times say nothing"""
    json: Path | None = None
    """write the table there after every row; rows that it holds already and that are not measured again stay"""
    page: Path | None = None
    """measure nothing: write the table of --json into this page, between its two marks"""
    sizes: Sizes = Sizes()


def main(args: list[str]) -> None:
    options = tyro.cli(Options, args=args, prog="python -m vfnet_edu.bench peers", description=__doc__)
    if options.page:
        write_page(options.page, read_table(options.json))
        return
    if unknown := [name for name in options.rows if name not in ROWS]:
        raise UserError(f"no such row: {', '.join(unknown)}", remedy=f"choose from {', '.join(ROWS)}")
    sizes = replace(QUICK, folder=options.sizes.folder) if options.quick else options.sizes
    table = begin(options, sizes)
    print(about(table))
    for name in options.rows:
        kept = [result for result in table["results"] if result["row"] != name]
        found = list(measure(name, sizes, options))
        table["results"] = sorted(kept + found, key=lambda result: list(ROWS).index(result["row"]))
        print("\n" + as_text(name, table), flush=True)
        if options.json:
            write_atomically(options.json, json.dumps(table, indent=1), remedy="give another --json")


def measure(name: str, sizes: Sizes, options: Options) -> Iterator[dict]:
    """The results of one row: per number of threads and contender its seconds, and its memory."""
    row = ROWS[name]
    for threads in options.threads if row.threads else (1,):
        for result in apart(times, name, sizes, options.repeats, threads):
            if options.memory and row.memory and "seconds" in result:
                result["peak_mb"] = apart(memory, name, result["contender"], sizes, threads)
            yield {"row": name, "threads": threads if row.threads else None, **result}


def times(name: str, *more) -> list[dict]:
    """A row finds its way into another process by its name."""
    return compete(ROWS[name], *more)


def memory(name: str, *more) -> float | None:
    return peak_megabytes(ROWS[name], *more)


# ------------------------------------------------------------------ the table as a value
def begin(options: Options, sizes: Sizes) -> dict:
    """A table without results, or the one that is there already, if it is of this machine and these sizes.

    Raises:
        UserError: the one that is there is of another machine, other versions, sizes or rounds.
    """
    fresh = {
        "machine": machine(),
        "versions": {name: found for name in PACKAGES if (found := version(name))},
        "repeats": options.repeats,
        "sizes": {name: value for name, value in asdict(sizes).items() if name != "folder"},
    }
    fresh = json.loads(json.dumps(fresh))  # tuples become lists, as in what is read
    if not options.json or not options.json.exists():
        return fresh | {"results": []}
    table = read_table(options.json)
    if other := [key for key, value in fresh.items() if table.get(key) != value]:
        raise UserError(
            f"{options.json}: measured with another {', '.join(other)}", "give another --json, or delete it"
        )
    return table


def read_table(path: Path | None) -> dict:
    """The table in a json.

    Raises:
        UserError: there is none.
    """
    if path is None:
        raise UserError("--page makes a page of a table that was measured", remedy="say which: --json FILE")
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        sizes_of(table)
        return {key: table[key] for key in ("machine", "versions", "repeats", "sizes", "results")}
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}", "measure first: --json FILE without --page", code=Exit.DATA
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} holds no table of `bench peers`: {error}", code=Exit.DATA) from None


def machine() -> str:
    """Processor and system."""
    model = platform.processor() or platform.machine()
    if (cpuinfo := Path("/proc/cpuinfo")).exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    return f"{model}, {os.cpu_count()} processors, {platform.system()}, Python {platform.python_version()}"


def version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


# ------------------------------------------------------------------ the table for people
def about(table: dict) -> str:
    versions = ", ".join(" ".join(item) for item in table["versions"].items())
    return f"{table['machine']}; {versions}; median (fastest .. slowest) of {table['repeats']} rounds"


def cells(name: str, table: dict) -> list[tuple[str, ...]]:
    """The results of a row as text: threads, contender, time, spread, images/s, against ours, memory."""
    row, sizes, lines, unit = ROWS[name], sizes_of(table), [], {}
    for result in (result for result in table["results"] if result["row"] == name):
        threads = str(result["threads"] or "")
        if "skipped" in result:
            lines.append((threads, result["contender"], "–", result["skipped"], "", "", ""))
            continue
        seconds = statistics.median(result["seconds"])
        compared = f"{seconds / unit[threads]:.2f}" if threads in unit else ""
        unit.setdefault(threads, seconds)
        images = row.images(sizes)
        rate = f"{images / seconds:.3g}" if images else ""
        spread = f"{milliseconds(min(result['seconds']))} .. {milliseconds(max(result['seconds']))}"
        memory = f"{result['peak_mb']:.0f}" if result.get("peak_mb") is not None else ""
        lines.append((threads, result["contender"], milliseconds(seconds), spread, rate, compared, memory))
    return lines


HEADINGS = ("threads", "contender", "ms", "fastest .. slowest", "images/s", "times the first", "peak MB")


def milliseconds(seconds: float) -> str:
    """With three digits, at least."""
    return f"{1e3 * seconds:.0f}" if seconds >= 0.1 else f"{1e3 * seconds:.3g}"


def sizes_of(table: dict) -> Sizes:
    return Sizes(**table["sizes"])


def as_text(name: str, table: dict) -> str:
    """One row for a terminal."""
    lines = [HEADINGS, *cells(name, table)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([ROWS[name].title.format(sizes_of(table)), *text])


def as_markdown(table: dict) -> str:
    """All rows for a page."""
    parts = [about(table) + "."]
    for name in dict.fromkeys(result["row"] for result in table["results"]):
        lines = [HEADINGS, ("--:", "---", "--:", "--:", "--:", "--:", "--:"), *cells(name, table)]
        shown = [i for i, column in enumerate(zip(*lines, strict=True)) if any(column[2:])]  # no empty columns
        body = "\n".join("| " + " | ".join(line[i] for i in shown) + " |" for line in lines)
        parts.append(f"**{ROWS[name].title.format(sizes_of(table))}**\n\n{body}")
    return "\n\n".join(parts)


def write_page(path: Path, table: dict) -> None:
    """Put the table between the two marks of a page.

    Raises:
        UserError: no such page, or no marks in it.
    """
    try:
        before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", code=Exit.DATA) from None
    _, mark, after = rest.partition(END)
    if not mark:
        raise UserError(f"{path} has no marks for the table", f"write {BEGIN} and {END} on lines of their own")
    write_atomically(path, f"{before}{BEGIN}\n\n{as_markdown(table)}\n\n{END}{after}")
