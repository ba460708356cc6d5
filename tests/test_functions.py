"""Functions stay readable: none of the package is longer than a page."""

import ast
from pathlib import Path

import vfnet_edu

ROOT = Path(vfnet_edu.__file__).parent
LINES = 60  # from `def` to the last line, docstring included
KERNELS = ROOT / "ops" / "star" / "triton_kernels.py"  # a Triton kernel cannot be split without loss


def too_long() -> set[str]:
    found = set()
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno + 1 > LINES and path != KERNELS:
                found.add(f"{path.relative_to(ROOT).as_posix()}: {node.name}")
    return found


def test_no_function_is_longer_than_a_page():
    assert not too_long()
