"""Shared by all tests: the Triton interpreter where there is no GPU, and the recorded outputs of the authors' code."""

import os
from pathlib import Path

import torch

# before anything imports triton: it binds the interpreter at import
os.environ.setdefault("TRITON_INTERPRET", "0" if torch.cuda.is_available() else "1")

import pytest  # noqa: E402
from fast import is_fast  # noqa: E402

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if is_fast(item.path.relative_to(HERE).as_posix() + item.nodeid.removeprefix(item.nodeid.split("::")[0])):
            item.add_marker(pytest.mark.fast)


@pytest.fixture(autouse=True)
def _repeatable():
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """Tests neither read the user's cache nor write to it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VFNET_EDU_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def one_thread():
    """The recordings were made on one thread; sums over two are rounded differently."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
