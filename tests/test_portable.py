"""What only POSIX systems have is not needed: the package runs on macOS and Windows, too."""

import ast
import os
import signal
from pathlib import Path

import pytest

import vfnet_edu
from vfnet_edu.data import loader
from vfnet_edu.doctor import installed_memory
from vfnet_edu.training.meter import Stop

MODULES = sorted(Path(vfnet_edu.__file__).parent.rglob("*.py"))
POSIX = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}


def imported(tree: ast.AST) -> set[str]:
    """Top-level names of everything that a module imports anywhere."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(MODULES[0].parent).as_posix())
def test_no_module_of_posix_is_imported(path):
    assert not imported(ast.parse(path.read_text(encoding="utf-8"))) & POSIX


def test_memory_is_told_where_the_system_tells_it(monkeypatch):
    assert installed_memory() is None or installed_memory() > 1e8
    monkeypatch.delattr(os, "sysconf", raising=False)  # as on Windows
    assert installed_memory() is None and "memory 0" not in loader._free()


def test_a_run_can_be_stopped_without_sigusr1(monkeypatch):
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.delattr(signal, "SIGUSR1", raising=False)
    try:
        stop = Stop()
        assert signal.getsignal(signal.SIGTERM) == stop._ask and not stop.asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(MODULES[0].parent).as_posix())
def test_text_is_utf_8_whatever_the_system_prefers(path):
    before = {"read_text": 0, "write_text": 1}  # arguments before the encoding
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in before:
            named = "encoding" in {keyword.arg for keyword in node.keywords}
            assert named or len(node.args) > before[node.func.attr], f"line {node.lineno}"
