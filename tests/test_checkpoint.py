"""The state of a run: whatever is wrong with the newest file, the one before is taken."""

import io
import pickle
import random
import zipfile

import pytest
import torch

from vfnet_edu.runtime.errors import Exit, UserError
from vfnet_edu.training import checkpoint

STATE = {"model": {"weight": torch.arange(3.0)}, "optimizer": {"state": {}}, "recipe": {"name": "ünder"}, "step": 1}


def saved(content) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.fixture
def run(tmp_path):
    """A run folder with two states, of step 1 and of step 2"""
    for step in (1, 2):
        checkpoint.save(tmp_path, STATE | {"step": step})
    assert checkpoint.load(tmp_path)[0]["step"] == 2
    return tmp_path


def falls_back(run, content: bytes) -> str:
    (run / "last.pt").write_bytes(content)
    state, note = checkpoint.load(run)
    assert state["step"] == 1 and "last.pt" in note and "resuming from previous.pt" in note
    return note


def test_a_name_inside_that_is_no_text(run):
    """zipfile raises UnicodeDecodeError where a record's name is marked as UTF-8 and is not."""
    content = (run / "last.pt").read_bytes()
    start = content.rindex(b"PK\x01\x02")  # the last record of the directory; its flags follow at 8, its name at 46
    content = bytearray(content)
    content[start + 9] |= 0x08
    content[start + 46] = 0xB7
    with pytest.raises(UnicodeDecodeError):
        zipfile.ZipFile(io.BytesIO(content))
    falls_back(run, bytes(content))


def test_any_damage(run):
    """A few bytes changed anywhere (some do not matter), or the end cut off"""
    whole, rng = (run / "last.pt").read_bytes(), random.Random(0)
    for _ in range(200):
        content = bytearray(whole)
        for _ in range(rng.choice((1, 2, 8))):
            content[rng.randrange(len(content))] ^= 1 + rng.randrange(255)
        (run / "last.pt").write_bytes(content)
        state, _ = checkpoint.load(run)
        assert state["model"].keys() == STATE["model"].keys()
        assert torch.equal(state["model"]["weight"], STATE["model"]["weight"])
    for length in range(0, len(whole) - 1, 97):
        falls_back(run, whole[:length])


class Foreign:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    "content",
    [
        saved([1, 2]),
        saved("text"),
        saved(torch.zeros(2)),
        saved({}),
        saved({"model": {}}),
        saved(STATE | {"model": [1]}),
        saved(STATE | {"optimizer": None}),
        saved(STATE | {"step": Foreign()}),
        pickle.dumps([1, 2]),
        b"<html>quota exceeded</html>",
        b"",
    ],
)
def test_a_whole_file_with_something_else_inside(run, content, capsys):
    falls_back(run, content)
    assert capsys.readouterr().out == ""


def test_nothing_left(run, tmp_path):
    (run / "last.pt").write_bytes(b"")
    (run / "previous.pt").write_bytes(saved([1]))
    with pytest.raises(UserError, match="last.pt: .*previous.pt: not the state of a run") as error:
        checkpoint.load(run)
    assert error.value.code == Exit.CHECKPOINT and "\n" not in str(error.value)
