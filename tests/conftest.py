"""Shared by all tests: the Triton interpreter where there is no GPU, and the recorded outputs of the authors' code."""

import os

import torch

# before anything imports triton: it binds the interpreter at import
os.environ.setdefault("TRITON_INTERPRET", "0" if torch.cuda.is_available() else "1")

import pytest  # noqa: E402


@pytest.fixture(autouse=True)
def _repeatable():
    torch.manual_seed(0)


@pytest.fixture
def one_thread():
    """The recordings were made on one thread; sums over two are rounded otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
