"""The list of tests that are not fast names tests that exist."""

import ast
from functools import cache
from pathlib import Path

import pytest
from fast import NOT_FAST, is_fast

HERE = Path(__file__).parent


@cache
def functions(file: str) -> set[str]:
    """Names at the top of a file of tests."""
    tree = ast.parse((HERE / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("entry", NOT_FAST)
def test_an_entry_is_a_test(entry):
    file, _, name = entry.partition("::")
    assert (HERE / file).exists()
    if name:
        assert name in functions(file)


def test_whole_names_count():
    assert not is_fast("test_star.py::test_gradients[reference]") and not is_fast("book/test_lab.py::test_two_ways")
    assert is_fast("test_star.py::test_gradients_and_more") and is_fast("test_fast.py::test_whole_names_count")
