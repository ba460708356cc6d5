"""No page is heavy: it is read on a train, too.

The weight of a page is its HTML file as it lies on the disk, not compressed: text, coloured code, formulas, and what
its explorers carry in it, that is their JavaScript, their style and their state.  Not counted are

- pictures: files in `_images` and `_static`, pictures inside the page (`data:image`), and the pictures that explorers
  paint with (a binary trait `pictures`);
- the weights of a network that runs in the page (a binary trait `weights`);
- what all pages share and a browser fetches once: `_static`, the index of the search.

A page of 300 kB travels in about 60 kB, as a web server compresses it.
"""

import json
import re

LIMIT = 300  # kB of 1000 bytes
EXCEPTIONS = {  # page: (ceiling in kB, why it is worth it)
    "notebooks/04_pyramid.html": (720, "measured receptive fields, one map of 32 x 32 for each of 336 cells"),
    "notebooks/08_ranking_oracle.html": (330, "three scenes with all 336 boxes and 2,688 scores, and two explorers"),
    "notebooks/10_ranking_proven.html": (880, "the frozen features that the page itself trains on"),
    "notebooks/12_refinement.html": (770, "feature maps and the star's weights, so that the page can refine a box"),
}
STATE = re.compile(r'<script type="application/vnd\.jupyter\.widget-state\+json">(.*?)</script>', re.DOTALL)
PICTURE = re.compile(r"data:image/[\w.+-]+;base64,[A-Za-z0-9+/=]*")
FREE = ("pictures", "weights")


def weight(html: str) -> float:
    """In kB, as this file's first lines define it."""
    free = sum(len(picture) for picture in PICTURE.findall(html))
    for state in STATE.findall(html):
        for model in json.loads(state)["state"].values():
            free += sum(len(b["data"]) for b in model.get("buffers", []) if b["path"][-1] in FREE)
    return (len(html.encode()) - free) / 1000


def test_a_page_is_light(site, page):
    found = weight((site / page).read_text(encoding="utf-8"))
    ceiling, _ = EXCEPTIONS.get(page, (LIMIT, ""))
    assert found <= ceiling, f"{page} weighs {found:.0f} kB of {ceiling}"


def test_exceptions_are_needed(site):
    """A page that has become light is no exception any more."""
    needless = [p for p in EXCEPTIONS if (site / p).is_file() and weight((site / p).read_text("utf-8")) <= LIMIT]
    assert needless == []


def test_what_counts():
    buffers = [{"path": ["weights"], "data": "w" * 4000}, {"path": ["data"], "data": "d" * 3000}]
    state = json.dumps(
        {"state": {"a": {"state": {"still": "data:image/png;base64," + "A" * 5000}, "buffers": buffers}}}
    )
    text = f'<p>{"é" * 1000}</p><script type="application/vnd.jupyter.widget-state+json">{state}</script>'
    assert 5 < weight(text) < 5.4  # 2 kB of letters, 3 kB of data, and the frame
