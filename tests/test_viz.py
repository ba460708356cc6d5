"""Pictures and the report: right pixels, right numbers in the titles, and text that cannot become markup."""

import json
import os
import warnings
from html.parser import HTMLParser

import matplotlib.style
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from vfnet_edu.data.coco import read_coco
from vfnet_edu.data.images import as_pixels
from vfnet_edu.evaluation.calibration import Calibration, Pairs
from vfnet_edu.evaluation.scores import Outcome, coco_scores
from vfnet_edu.postprocess import Detections
from vfnet_edu.viz import chapters, plots
from vfnet_edu.viz.drawing import colour, compare, draw, draw_targets, render
from vfnet_edu.viz.report import examples, read_metrics, write_report

NASTY = '<img src=x onerror="alert(1)">'


def some_detections(count=3):
    boxes = torch.tensor([[10.0, 20, 60, 70], [5, 5, 30, 30], [40, 40, 90, 95]])[:count]
    return Detections(boxes, torch.tensor([0.9, 0.5, 0.1])[:count], torch.tensor([0, 1, 2])[:count])


def noise(h, w):
    return np.random.default_rng(0).integers(0, 255, (h, w, 3), dtype=np.uint8)


# ------------------------------------------------------------------ drawing
@pytest.mark.parametrize("size", [(100, 100), (257, 333), (64, 1)])
def test_nothing_found_leaves_every_pixel_alone(size):
    assert np.array_equal(render(noise(*size), some_detections(0)), noise(*size))


def test_box_is_drawn_where_it_is_and_only_if_confident():
    image = np.full((100, 100, 3), 255, np.uint8)
    drawn = render(image, some_detections(), min_score=0.3)
    changed = (drawn != 255).any(-1)
    assert changed[45, 10] and changed[45, 60] and changed[70, 30]  # left, right, bottom side of the first
    assert not changed[60, 35] and not changed[67:, 62:].any()  # its inside, and the third box
    assert render(image, some_detections(), zoom=3).shape == (300, 300, 3)


def test_every_kind_of_image_is_read(tmp_path):
    array = noise(20, 30)
    Image.fromarray(array).save(tmp_path / "a.png")
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    for image in (array, tensor, Image.fromarray(array), tmp_path / "a.png", str(tmp_path / "a.png")):
        assert np.array_equal(as_pixels(image), array)


def test_axes_in_axes_out_and_names_are_not_formulas():
    ax = Figure().subplots()
    assert draw(some_detections(), noise(100, 100), [r"a $\foo$", "b_$", "c"], ax) is ax
    assert [text.get_text().replace(r"\$", "$") for text in ax.texts] == [r"a $\foo$ 0.90", "b_$ 0.50"]
    ax.figure.savefig(os.devnull, format="png")
    target = {"boxes": torch.tensor([[1.0, 2, 30, 40]]), "labels": torch.tensor([1])}
    assert draw_targets(target, noise(50, 60), ["a", "b"]).texts[0].get_text() == "b"
    figure = compare([noise(50, 60)], [target], [some_detections(1)], ["a", "b"])
    assert len(figure.axes) == 2


def test_labels_never_lie_on_each_other():
    many = Detections(torch.tensor([[30.0, 30, 70, 70]]).repeat(40, 1), torch.full((40,), 0.9), torch.arange(40) % 3)
    ax = draw(many, noise(100, 100))
    spots = [patch.get_bbox().padded(-1e-6) for patch in ax.patches if patch.get_fill()]
    assert 2 <= len(spots) < 40
    assert not any(a.overlaps(b) for n, a in enumerate(spots) for b in spots[:n])


def test_first_classes_have_different_colours():
    assert len({colour(k) for k in range(21)}) == 21 and colour(0) == colour(21)


# ------------------------------------------------------------------ plots
def diary():
    records = []
    for step in range(10, 110, 10):
        losses = {"loss_cls": 1 - step / 200, "loss_box": 2 - step / 100}
        records.append({"kind": "train", "step": step, "epoch": step / 50, "lr": 0.01, **losses, "data_share": 0.1})
        if step % 50 == 0:
            ap = {50: 0.31, 100: 0.28}[step]
            per_class = [{"name": NASTY, "AP": ap, "AP50": 0.5, "objects": 4, "detections": 5}]
            record = {"kind": "eval", "step": step, "epoch": step // 50, "AP": ap, "AP50": 0.5, "AP75": 0.2, "APl": -1}
            losses = {"val_loss_cls": 0.7, "val_loss_box": None}
            records.append({**record, **losses, "why": None, "images": 2, "per_class": per_class})
    return records


def test_titles_say_the_finding():
    assert plots.ap_curve(diary()).get_title(loc="left") == "AP reached 31.0 in epoch 1"
    assert plots.loss_curves(diary()).get_title(loc="left") == "The loss fell from 2.85 to 1.50"
    ax = Figure().subplots()
    assert plots.learning_rate(diary(), ax) is ax and "0.01" in ax.get_title(loc="left")
    calibration = Calibration()
    calibration.add(0, Pairs(torch.linspace(0, 1, 50), torch.linspace(0.3, 1, 50), torch.zeros(50, dtype=torch.long)))
    assert "1.00" in plots.score_and_iou(calibration).get_title(loc="left")


def test_plots_of_nothing_are_drawn_all_the_same():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for ax in (
            *(plot([]) for plot in (plots.loss_curves, plots.learning_rate, plots.ap_curve)),
            plots.loss_curves([{"kind": "train", "step": 1, "lr": 0.1, "loss_cls": None}]),
            plots.score_and_iou(Calibration()),
        ):
            ax.figure.savefig(os.devnull, format="png")


# ------------------------------------------------------------------ the report
def data_set(tmp_path):
    (tmp_path / "images").mkdir()
    for n in range(3):
        Image.fromarray(noise(60, 80)).save(tmp_path / "images" / f"{n}.png")
    data = {
        "images": [{"id": n + 1, "file_name": f"{n}.png", "width": 80, "height": 60} for n in range(3)],
        "categories": [{"id": 4, "name": NASTY}, {"id": 9, "name": r"dog $\x$"}],
        "annotations": [
            {"id": n + 1, "image_id": n + 1, "category_id": (4, 9)[n], "bbox": [5, 5, 30, 30], "area": 900}
            for n in range(2)
        ],
    }
    (tmp_path / "val.json").write_text(json.dumps(data))
    index = read_coco(tmp_path / "val.json", tmp_path / "images")
    results = [{"image_id": 2, "category_id": 9, "bbox": [5, 5, 30, 29], "score": 0.8}]
    return index, results


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run <b>&"
    folder.mkdir()
    lines = [json.dumps(record) for record in diary()]
    (folder / "metrics.jsonl").write_text("\n".join([*lines, '{"kind": "train", "st']))
    (folder / "config.txt").write_text("  name = '<script>'\n* optim.lr = 0.02")
    (folder / "environment.json").write_text(json.dumps({"command": "python -m vfnet_edu.train <x>", "torch": "2.15"}))
    return folder


def test_report_is_a_page_of_pictures_and_numbers_without_foreign_markup(run, tmp_path):
    index, results = data_set(tmp_path)
    outcome = Outcome(results, {}, Calibration())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_report(run, coco_scores(index, results), outcome, index, {"training images": 292})
    page = Page((run / "index.html").read_text())
    pictures = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    assert sorted(pictures) == sorted(path.name for path in run.glob("*.png")) and len(pictures) == 9
    assert not {"script", "b>&"} & {tag for tag, _ in page.tags} and "onerror" not in str(page.tags)
    for text in ("run <b>&", NASTY, r"dog $\x$", "292", "'<script>'", "train <x>", "2.15", "IoU .50:.95", "–"):
        assert text in page.text
    links = [attrs.get(key, "") for _, attrs in page.tags for key in ("src", "href")]
    assert not any("//" in link for link in links)  # it opens without a network


def test_report_without_anything_is_a_page(tmp_path):
    write_report(tmp_path)
    assert "<h1>" in (tmp_path / "index.html").read_text()


def test_earlier_pictures_stay(run, tmp_path):
    index, results = data_set(tmp_path)
    write_report(run, coco_scores(index, results))
    write_report(run)
    assert 'src="pr.png"' in (run / "index.html").read_text()


def test_why_is_on_the_page(run, tmp_path):
    index, _ = data_set(tmp_path)
    write_report(run, coco_scores(index, []))
    assert "AP is 0: there is no detection" in Page((run / "index.html").read_text()).text


def test_full_disk_warns_once_and_raises_nothing(run, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vfnet_edu.viz.report.write_atomically", full)
    with pytest.warns(UserWarning, match="incomplete.*No space left") as caught:
        write_report(run)
    assert len(caught) == 1


def test_diary_with_a_repeated_step_and_a_torn_line(run):
    with open(run / "metrics.jsonl", "a") as file:
        file.write('\n{"kind": "train", "step": 10, "loss_cls": 7}\n[1]\n"x"\n')
    records = read_metrics(run / "metrics.jsonl")
    assert len(records) == 12 and records[0]["loss_cls"] == 7
    assert read_metrics(run / "none.jsonl") == []


def test_examples_show_images_with_objects(tmp_path):
    index, results = data_set(tmp_path)
    images, targets, found = examples(index, results, count=5)
    assert len(images) == 2 and targets[1]["labels"].tolist() == [1]
    assert found[0].boxes.shape == (0, 4) and found[1].boxes.tolist() == [[5, 5, 35, 34]]


def luminance(colour: str) -> float:
    """Relative luminance as WCAG defines it, 0 to 1."""
    rgb = np.array(to_rgb(colour))
    return float(np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722))


@pytest.mark.parametrize("paper", ["#ffffff", "#14181e"], ids=["light", "dark"])
@pytest.mark.parametrize("ink", ["BLUE", "ORANGE", "GREEN", "PINK", "YELLOW", "SKY", "INK"])
def test_a_chapter_s_inks_are_seen_on_both_papers(ink, paper):
    low, high = sorted((luminance(getattr(chapters, ink)), luminance(paper)))
    assert (high + 0.05) / (low + 0.05) >= 3


def test_a_chapter_s_figure_has_no_ground():
    with matplotlib.style.context("vfnet_edu.viz.chapter"):
        ax = plots.score_and_iou(Calibration())
        assert ax.figure.get_facecolor()[3] == 0 and ax.get_facecolor()[3] == 0
        assert ax.xaxis.label.get_color().strip("#") == chapters.INK.strip("#")


def test_outlines_and_pictures():
    ax = chapters.picture(Figure().subplots(), torch.zeros(3, 20, 30, dtype=torch.uint8), "a title")
    assert ax.get_xlim() == (0, 30) and ax.get_ylim() == (20, 0) and ax.get_title() == "a title"
    chapters.outline(ax, torch.tensor([[1.0, 2, 11, 8]]), "red", halo=True)
    black, red = ax.patches
    assert black.get_bbox().bounds == red.get_bbox().bounds == (1, 2, 10, 6)
    assert black.get_linewidth() > red.get_linewidth()
