"""What is kept of a json equals what was read, and whatever goes wrong with the cache, the json is still read."""

import errno
import json
import os
import shutil
import threading
import warnings

import numpy as np
import pytest
from test_coco import GOOD

from vfnet_edu.data import cache, coco
from vfnet_edu.data.coco import read_coco
from vfnet_edu.runtime.errors import Exit, UserError

MORE = {
    "a good file": {},
    "repaired": {"annotations": [{"image_id": "10", "category_id": 7.0, "bbox": [1, 2, 3, 4], "area": float("nan")}]},
    "no objects": {"annotations": []},
    "any text": {
        "images": [{"id": 1, "file_name": "中/\ud800 \n.jpg", "width": 9, "height": 9}],
        "annotations": [],
        "categories": [{"id": 1, "name": "\0"}, {"id": 2, "name": ""}],
    },
}


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    """Short files are kept too, in a folder of this test."""
    monkeypatch.setattr(cache, "SMALLEST", 1)
    monkeypatch.setattr(cache, "EDGE", 32)
    monkeypatch.setenv("VFNET_EDU_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "coco"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(GOOD))
    return path


@pytest.fixture
def parsed(monkeypatch):
    """The files that were parsed."""
    seen, read = [], coco.read_tables
    monkeypatch.setattr(coco, "read_tables", lambda path: seen.append(path) or read(path))
    return seen


def entries(folder):
    return sorted(folder.glob("*.npz"))


def assert_equal(one, other):
    for name, value in vars(one).items():
        match = vars(other)[name]
        assert type(value) is type(match), name
        if isinstance(value, np.ndarray):
            assert value.dtype == match.dtype and value.flags.writeable and match.flags.writeable, name
            np.testing.assert_array_equal(value, match, err_msg=name)
        else:
            assert value == match, name


@pytest.mark.parametrize("more", MORE.values(), ids=MORE)
def test_the_cache_gives_what_the_file_gives(path, folder, parsed, more):
    path.write_text(json.dumps(GOOD | more))
    first = read_coco(path, "images")
    again = read_coco(path, "images")
    assert len(parsed) == len(entries(folder)) == 1
    assert_equal(first, again)
    assert len(again.fingerprint) == 16
    assert read_coco(path, "elsewhere").path(0).parts[0] == "elsewhere"  # the folder of images is not cached
    assert len(parsed) == 1


def test_columns_are_those_of_this_format(path):
    names = (
        "annotation_ids areas category_ids classes crowd file_names fingerprint heights ignore image_ids labels notes"
    )
    now = " ".join(sorted(coco._read_columns(path)))
    assert (cache.FORMAT, now) == (1, names + " starts widths xywh"), "raise FORMAT, then change this line"


@pytest.mark.parametrize("restored", [False, True])
def test_a_changed_file_is_read_again(path, folder, parsed, restored):
    before, status = read_coco(path, "."), path.stat()
    path.write_text(path.read_text().replace("stop sign", "shop sign"))  # as long as before, and near the end
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + (not restored)))
    assert path.stat().st_size == status.st_size
    after = read_coco(path, ".")
    assert "shop sign" in after.classes and after.fingerprint != before.fingerprint
    assert len(parsed) == 2 and len(entries(folder)) == 1  # the entry was replaced


def test_a_copy_has_an_entry_of_its_own(path, folder, parsed, tmp_path):
    (tmp_path / "copy").mkdir()
    copy = shutil.copy2(path, tmp_path / "copy" / path.name)
    for json_path in (path, copy, path):
        assert read_coco(json_path, ".").json_path == json_path
    assert len(parsed) == len(entries(folder)) == 2


def test_a_link_has_no_entry_of_its_own(path, folder, parsed, tmp_path):
    (tmp_path / "link.json").symlink_to(path)
    assert read_coco(tmp_path / "link.json", ".").json_path.name == "link.json"
    read_coco(tmp_path / "link.json", ".")
    assert len(parsed) == 1


def test_small_files_are_not_kept(path, folder, parsed, monkeypatch):
    monkeypatch.setattr(cache, "SMALLEST", path.stat().st_size + 1)
    assert_equal(read_coco(path, "."), read_coco(path, "."))
    assert len(parsed) == 2 and not folder.exists()


def test_wrong_files_are_not_kept(path, folder):
    path.write_text(json.dumps(GOOD | {"categories": []}))
    for _ in range(2):
        with pytest.raises(UserError, match='"categories" is empty'):
            read_coco(path, ".")
    assert not entries(folder)


def test_damaged_entries_are_made_anew(path, folder, parsed):
    whole = read_coco(path, ".")
    (entry,) = entries(folder)
    good, random = entry.read_bytes(), np.random.default_rng(0)
    damaged = [b"", b"PK", good[: len(good) // 2], good[:-1], good[1:], b"\x80\x04N.", bytes(len(good))]
    directory = good.index(b"PK\x01\x02")  # a damaged one can make arrays vanish
    for place in [*random.integers(0, len(good), 60), *random.integers(directory, len(good), 60)]:
        damaged.append(good[:place] + bytes([good[place] ^ 1 << random.integers(8)]) + good[place + 1 :])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for content in damaged:
            entry.write_bytes(content)
            assert_equal(read_coco(path, "."), whole)
    assert len(parsed) > 40  # of the others, a byte was hit that nobody reads


def test_python_objects_are_not_loaded(path, folder, parsed):
    whole = read_coco(path, ".")
    (entry,) = entries(folder)
    with np.load(entry) as arrays:
        content = dict(arrays)
    np.savez(entry, **content | {"xywh": np.array([print, {}], object)})
    assert_equal(read_coco(path, "."), whole)
    assert len(parsed) == 2


def test_no_place_for_a_cache(path, monkeypatch, tmp_path, recwarn):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VFNET_EDU_CACHE", str(tmp_path / "file"))
    (tmp_path / "val.json").write_text(path.read_text())
    assert len(read_coco(path, ".")) == len(read_coco(tmp_path / "val.json", ".")) == 3
    (warning,) = {str(w.message) for w in recwarn}  # the same words are shown once
    assert f"{tmp_path / 'file'}" in warning and "set VFNET_EDU_CACHE" in warning and "\n" not in warning


def test_no_home(path, monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(cache, "cache_folder", homeless)
    with pytest.warns(UserWarning, match="home directory"):
        assert len(read_coco(path, ".")) == 3


def test_a_full_disk(path, folder, monkeypatch):
    def full(path, content):
        raise UserError("full", code=Exit.STORAGE) from OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache, "write_atomically", full)
    with pytest.warns(UserWarning, match="No space left on device"):
        assert len(read_coco(path, ".")) == 3


@pytest.mark.parametrize("limit", ["MAX_ENTRIES", "MAX_BYTES"])
def test_the_oldest_entries_go(path, folder, monkeypatch, limit):
    read_coco(path, ".")
    entry = entries(folder)[0]
    monkeypatch.setattr(cache, limit, 3 if limit == "MAX_ENTRIES" else 3.5 * entry.stat().st_size)
    leftover = folder / ".killed.npz.1.tmp"  # of a process that was killed while it wrote
    leftover.write_bytes(entry.read_bytes())
    for old in (entry, leftover):
        os.utime(old, (0, 0))
    for i in range(1, 6):
        newer = path.with_name(f"{i}.json")
        shutil.copy(path, newer)
        read_coco(newer, ".")
        os.utime(next(folder.glob(f"{i}-*.npz")), (i, i))
    assert [kept.name[0] for kept in entries(folder)] == ["3", "4", "5"]
    assert len(list(folder.iterdir())) == 6  # the locks of those that went are gone, too
    monkeypatch.setattr(cache, "MAX_BYTES", 1)
    read_coco(path, ".")
    assert len(entries(folder)) == 1  # the newest stays, whatever its size


def test_one_reads_and_the_others_wait(path, parsed):
    found = []
    threads = [threading.Thread(target=lambda: found.append(read_coco(path, "."))) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 8 and len(parsed) == 1
    for index in found:
        assert_equal(index, found[0])
