"""Build the book, offline, into book/_build/html: every notebook is executed, every warning is an error.

    python book/build.py                            the whole book
    python book/build.py --only 09 --out trial      while writing: execute one chapter, show the others as they are

A notebook is executed again when one of its cells or anything in the package has changed.
"""

import argparse
import hashlib
import importlib.util
import os
import shutil
import sys
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NEEDS = {  # module -> what it is for
    "jupyter_book": "Jupyter Book 1",
    "sphinx-mathjax-offline": "formulas without a network",
    "jupyter_cache": "executing notebooks",
    "ipykernel": "executing notebooks",
    "anywidget": "the explorers",
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="execute only notebooks whose name starts so; let warnings pass")
    parser.add_argument("--out", type=Path, default=ROOT / "book", help="the folder that _build/html is made in")
    args = parser.parse_args(argv)

    started, out = time.time(), args.out.resolve() / "_build"
    check_tools()
    sys.path.insert(0, str(ROOT))  # the API pages, and below every kernel, describe this checkout
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    build(out, args.only)
    check_executed(out, args.only)
    print(f"Built in {time.time() - started:.0f} s: open {out / 'html/index.html'}")


def check_tools() -> None:
    missing = [f"{module} ({purpose})" for module, purpose in NEEDS.items() if not importlib.util.find_spec(module)]
    if missing:
        sys.exit(f"error: not installed: {', '.join(missing)} (pip install '.[book]', from the root of the repository)")
    from jupyter_book import __version__

    if int(__version__.split(".")[0]) != 1:
        sys.exit(f"error: Jupyter Book {__version__} keeps no explorer alive (pip install 'jupyter-book<2')")


def build(out: Path, only: str) -> None:
    """Jupyter Book with book/_config.yml and what stands elsewhere; leaves if that fails."""
    import yaml
    from jupyter_book.cli.main import main as jupyter_book

    cache = out / f"executed-{package_hash()}"  # its keys are the cells; what they import must be part of the name
    for old in {out / "html", out / "jupyter_execute", *out.glob("executed-*")} - {cache}:
        shutil.rmtree(old, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)

    config = yaml.safe_load((ROOT / "book/_config.yml").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    config["repository"]["url"] = project["urls"]["Repository"]  # the Colab buttons point there
    as_they_are = [f"notebooks/{p.name}" for p in sorted(set(notebooks()) - set(notebooks(only)))]
    config["execute"] |= {"cache": str(cache), "exclude_patterns": as_they_are}
    (out / "config.yml").write_text(yaml.safe_dump(config), encoding="utf-8")

    command = ["build", str(ROOT), "--config", str(out / "config.yml"), "--toc", str(ROOT / "book/_toc.yml")]
    command += ["--path-output", str(out.parent), "--all", *([] if only else ["-W", "-n", "--keep-going"])]
    try:
        jupyter_book(command, standalone_mode=False)
    except RuntimeError:  # what happened is printed already
        sys.exit("error: the book was not built: see above")


def notebooks(only: str = "") -> list[Path]:
    return sorted((ROOT / "notebooks").glob(f"{only}*.ipynb"))


def package_hash() -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in (ROOT / "vfnet_edu").rglob("*") if p.is_file() and "__pycache__" not in p.parts):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def check_executed(out: Path, only: str) -> None:
    """A page whose code never ran looks almost like one whose code did.  The tests read what is written here."""
    import nbformat
    from jupyter_cache import get_cache

    cache = get_cache(next(out.glob("executed-*")))
    for path in notebooks(only):
        try:
            key, executed = cache.merge_match_into_notebook(nbformat.read(path, 4))
        except KeyError:
            sys.exit(f"error: {path.name} was not executed (is it in book/_toc.yml?)")
        seconds = cache.get_cache_record(key).data["execution_seconds"]
        outputs = sum(len(cell.get("outputs", [])) for cell in executed.cells)
        if not outputs or seconds < 0.2:
            sys.exit(f"error: {path.name} was hardly executed: {outputs} outputs in {seconds:.1f} s")
        nbformat.write(executed, out / "jupyter_execute/notebooks" / path.name)
        print(f"{path.name}: {outputs} outputs, executed in {seconds:.1f} s")


if __name__ == "__main__":
    main()
