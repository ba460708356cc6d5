"""The order of the images, and batches that do not depend on who prepares them."""

import json
import os
import pickle
import signal
import time

import numpy as np
import pytest
import torch
from PIL import Image

from vfnet_edu.data.coco import read_coco
from vfnet_edu.data.loader import Loader, Order, Samples, epoch_order, guarded, train_loader, val_loader
from vfnet_edu.data.transforms import AugmentConfig
from vfnet_edu.runtime.errors import Exit, UserError

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores: on purpose

AUGMENT = AugmentConfig(long_side=(96, 128), short_side=(64, 96), flip=0.5, crop=0.5, cutout=0.5)
WIDE = np.arange(23) % 3 > 0  # 15 landscape, 8 portrait


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """11 images of several sizes, two objects each, except for the last: 6 landscape, 4 portrait, 1 square."""
    root = tmp_path_factory.mktemp("data")
    sizes = [(48, 64)] * 3 + [(64, 48)] * 4 + [(40, 80)] * 3 + [(50, 50)]
    rng = np.random.default_rng(0)
    content = {"images": [], "annotations": [], "categories": [{"id": 4, "name": "x"}, {"id": 9, "name": "y"}]}
    for i, (h, w) in enumerate(sizes):
        Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)).save(root / f"{i}.jpg")
        content["images"].append({"id": 100 + i, "file_name": f"{i}.jpg", "width": w, "height": h})
        for k in range(2 * (i < len(sizes) - 1)):
            record = {"id": 2 * i + k + 1, "image_id": 100 + i, "category_id": (4, 9)[k], "bbox": [5 + k, 6, 20, 30]}
            content["annotations"].append(record)
    (root / "instances.json").write_text(json.dumps(content))
    return read_coco(root / "instances.json", root)


def key(batch):
    """All that is in a batch, comparable."""
    images, targets = batch
    return [(t["index"], i.numpy().tobytes(), t["boxes"].tolist(), t["labels"].tolist(), t["scale"])
            for i, t in zip(images, targets, strict=True)]  # fmt: skip


# ---- The order


@pytest.mark.parametrize("batch_size", [1, 2, 4, 7, 16])
def test_batches_are_all_landscape_or_all_portrait(batch_size):
    order = epoch_order(WIDE, batch_size, seed=3, epoch=5)
    assert len(order) == -(-15 // batch_size) + -(-8 // batch_size) and order.shape[1] == batch_size
    assert all(len(set(WIDE[batch])) == 1 for batch in order)
    assert set(order.ravel()) == set(range(23))
    assert np.bincount(order.ravel()).max() <= -(-batch_size // 8) + 1  # what fills up is not always the same image


def test_order_is_a_function_of_seed_and_epoch():
    orders = {(s, e): epoch_order(WIDE, 2, s, e).tobytes() for s in range(3) for e in range(3)}
    assert len(set(orders.values())) == 9
    assert orders[1, 2] == epoch_order(WIDE, 2, 1, 2).tobytes()


def test_every_image_is_as_likely_to_come_first():
    first = np.bincount([epoch_order(WIDE, 1, 0, epoch)[0, 0] for epoch in range(2300)], minlength=23)
    assert first.min() > 60 and first.max() < 145  # 100 on average, standard deviation 10


def test_one_kind_of_image_only():
    for wide in (np.zeros(5, bool), np.ones(5, bool)):
        assert sorted(set(epoch_order(wide, 2, 0, 0).ravel())) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_ranks_share_equally(world):
    orders = [list(Order(WIDE, 2, 0, range(2), rank=rank, world=world)) for rank in range(world)]
    per_epoch = Order(WIDE, 2, 0, range(2), world=world).per_epoch()
    assert {len(order) for order in orders} == {2 * per_epoch} and len(
        Order(WIDE, 2, 0, range(2), world=world)
    ) == 2 * per_epoch
    for epoch in range(2):
        shares = [order[epoch * per_epoch : (epoch + 1) * per_epoch] for order in orders]
        rows = [row for share in shares for batch in share for e, row in batch if e == epoch]
        assert set(rows) == set(range(23)) and len(rows) == 2 * world * per_epoch
        assert len(rows) < 23 + 2 * 2 + 2 * world  # only what fills up is seen twice


def test_processes_and_accumulated_batches_do_the_same():
    """4 processes, or one that accumulates 4 batches, or 2 that accumulate 2: the same images in every step."""

    def steps(world, accumulate):
        ranks = [list(Order(WIDE, 2, 0, range(2), 0, rank, world, accumulate)) for rank in range(world)]
        count = len(ranks[0]) // accumulate
        return [
            sorted(row for rank in ranks for batch in rank[s * accumulate : (s + 1) * accumulate] for row in batch)
            for s in range(count)
        ]

    assert steps(4, 1) == steps(1, 4) == steps(2, 2)
    assert Order(WIDE, 2, 0, range(1), accumulate=4).per_epoch() % 4 == 0


def test_start_in_the_middle():
    whole = list(Order(WIDE, 2, 0, range(4)))
    per_epoch = Order(WIDE, 2, 0, range(4)).per_epoch()
    part = Order(WIDE, 2, 0, range(1, 4), start_batch=5)
    assert list(part) == whole[per_epoch + 5 :] and len(part) == len(whole) - per_epoch - 5
    assert len(Order(WIDE, 2, 0, range(3, 3))) == 0 == len(list(Order(WIDE, 2, 0, range(3, 3))))
    at_the_end = Order(WIDE, 2, 0, range(1, 3), start_batch=per_epoch)
    assert list(at_the_end) == whole[2 * per_epoch : 3 * per_epoch]


# ---- Batches


def test_a_training_batch(index):
    training, _ = index.for_training()
    images, targets = next(iter(train_loader(training, AUGMENT, 2, 0, range(1), workers=0)))
    assert isinstance(images, list) and len(images) == len(targets) == 2
    for image, target in zip(images, targets, strict=True):
        assert image.dtype == torch.uint8 and image.ndim == 3 and image.shape[0] == 3 and image.is_contiguous()
        assert target["boxes"].dtype == torch.float32 and target["boxes"].shape == (len(target["labels"]), 4)
        assert target["labels"].dtype == torch.int64 and set(target["labels"].tolist()) <= {0, 1}
        assert target["image_id"] == training.image_ids[target["index"]]
        assert target["original_size"] == training.size(target["index"])
        h, w = image.shape[1:]
        assert (target["boxes"] >= 0).all() and (target["boxes"] <= torch.tensor([w, h, w, h])).all()


def test_channels_are_red_green_blue(index):
    (image,), (target,) = next(iter(val_loader(index, (64, 48), 1, workers=0)))
    stored = np.asarray(Image.open(index.path(target["index"])))
    assert np.array_equal(image.permute(1, 2, 0).numpy(), stored)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(index, workers):
    training, _ = index.for_training()
    alone = [key(batch) for batch in train_loader(training, AUGMENT, 2, 7, range(2), workers=0)]
    shared = [key(batch) for batch in train_loader(training, AUGMENT, 2, 7, range(2), workers=workers)]
    assert alone == shared and len(alone) == 10
    resumed = train_loader(training, AUGMENT, 2, 7, range(1, 2), start_batch=3, workers=workers)
    assert [key(batch) for batch in resumed] == alone[8:]


def test_epochs_differ_and_repeat(index):
    training, _ = index.for_training()
    loader = train_loader(training, AUGMENT, 2, 7, range(2), workers=0)
    first, again = [key(batch) for batch in loader], [key(batch) for batch in loader]
    assert first == again and first[:5] != first[5:] and len(loader) == 10


def test_the_first_epochs_may_see_smaller_images(index):
    small = AugmentConfig(long_side=(128, 128), short_side=(128, 128), small_epochs=1, small=0.5)
    first, second = (Samples(index, small)[epoch, 0] for epoch in (0, 1))  # twice as large in the second
    assert first[0].shape == (3, 48, 64) and second[0].shape == (3, 96, 128)
    assert first[1]["scale"] == (1.0, 1.0) and second[1]["scale"] == (2.0, 2.0)


def test_global_random_numbers_are_left_alone(index):
    before = torch.get_rng_state()
    list(val_loader(index, (64, 48), 2, workers=1))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("world", [1, 2, 5, 20])
def test_validation_sees_every_image_once(index, world):
    seen = [
        target
        for rank in range(world)
        for _, targets in val_loader(index, (128, 96), 2, rank, world, workers=0)
        for target in targets
    ]
    assert sorted(target["index"] for target in seen) == list(range(11))  # even the one without objects
    assert {len(target["labels"]) for target in seen} == {0, 2}


def test_validation_batches_need_no_padding(index):
    for images, targets in val_loader(index, (128, 96), 4, workers=0):
        assert len({tuple(-(-side // 32) for side in image.shape[1:]) for image in images}) == 1
        for image, target in zip(images, targets, strict=True):
            h, w = target["original_size"]
            assert target["scale"] == (image.shape[2] / w, image.shape[1] / h)
            if len(target["boxes"]):
                sx, sy = target["scale"]
                assert torch.allclose(target["boxes"][0], torch.tensor([5 * sx, 6 * sy, 25 * sx, 36 * sy]))


def test_spawned_workers_get_all_they_need(index):
    samples = pickle.loads(pickle.dumps(Samples(index, AUGMENT, 7)))
    assert torch.equal(samples[1, 2][0], Samples(index, AUGMENT, 7)[1, 2][0])


# ---- Trouble


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("content", [None, b"", b"\xff\xd8\xff\xe0 no photo"])
def test_a_bad_image_is_named(index, tmp_path, workers, content):
    broken = read_coco(index.json_path, tmp_path)
    for i in range(11):
        (tmp_path / f"{i}.jpg").write_bytes(index.path(i).read_bytes())
    (tmp_path / "6.jpg").unlink()
    if content is not None:
        (tmp_path / "6.jpg").write_bytes(content)
    with pytest.raises(UserError) as caught:
        list(val_loader(broken, (64, 48), 2, workers=workers))
    assert str(tmp_path / "6.jpg") in str(caught.value) and caught.value.code == Exit.DATA
    assert "Traceback" not in str(caught.value) and "\n" not in str(caught.value)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def hang():
    time.sleep(60)


def bug():
    raise RuntimeError("shapes do not match")


class Misbehaving:
    """Samples of which row 5 does something terrible."""

    def __init__(self, index, deed):
        self.index, self.deed = index, deed

    def __getitem__(self, key):
        if key[1] == 5:
            self.deed()
        target = {
            "boxes": np.zeros((0, 4), np.float32),
            "labels": np.zeros(0),
            "scale": (1, 1),
            "original_size": (4, 4),
        }
        return torch.zeros(3, 4, 4, dtype=torch.uint8), target


def test_a_killed_worker_is_explained(index):
    samples = Misbehaving(index, die)
    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        list(Loader(samples, [[(0, i)] for i in range(11)], workers=4))
    assert (
        caught.value.code == Exit.WORKER
        and "out of memory" in str(caught.value)
        and "--data.workers 2" in str(caught.value)
    )
    assert time.monotonic() - started < 10


def test_a_hanging_worker_is_explained(index):
    samples = Misbehaving(index, hang)
    with pytest.raises(UserError) as caught:
        list(Loader(samples, [[(0, i)] for i in range(11)], workers=1, timeout=1))
    assert caught.value.code == Exit.WORKER and str(index.path(5)) in str(caught.value)


def test_a_bug_is_not_taken_for_a_dead_worker(index):
    with pytest.raises(RuntimeError, match="shapes do not match"):
        list(Loader(Misbehaving(index, bug), [[(0, 5)]], workers=1))
    with pytest.raises(RuntimeError, match="CUDA"), guarded(2):
        raise RuntimeError("CUDA out of memory")


def test_death_at_any_point_of_the_loop():
    with pytest.raises(UserError) as caught, guarded(2):
        raise RuntimeError("DataLoader worker (pid 17) is killed by signal: Killed. \nmore")
    assert caught.value.code == Exit.WORKER and "pid 17" in str(caught.value) and "\n" not in str(caught.value)
