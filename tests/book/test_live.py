"""The live detector on a page of its own: what can be done with it, and what a browser sees that lacks something."""

import base64
import json

import pytest
from built import ROOT, listen

import vfnet_edu as vf

pytest.importorskip("anywidget", reason="the explorers need anywidget")
from vfnet_edu.widgets import DetectorExplorer  # noqa: E402

KIND = "application/vnd.jupyter.widget"
QUIET = {"errors": [], "failed": [], "elsewhere": []}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A page with the explorer alone, as the book embeds it."""
    explorer = DetectorExplorer.of(vf.load("vfnet_tiny")[1])
    state = {key: value for key, value in explorer.get_state().items() if key != "layout"}
    binary = {key: base64.b64encode(state.pop(key)).decode() for key in ("weights", "pictures")}
    buffers = [{"path": [key], "encoding": "base64", "data": data} for key, data in binary.items()]
    record = {"model_module": "anywidget", "model_name": "AnyModel", "state": state, "buffers": buffers}
    told = json.dumps({"state": {"live": record}}).replace("</", "<\\/")
    host = (ROOT / "book/_static/anyhost.js").as_uri()
    page = tmp_path_factory.mktemp("live") / "page.html"
    page.write_text(
        f'<html lang="en"><body><script type="{KIND}-view+json">{{"model_id": "live"}}</script>'
        f'<script type="{KIND}-state+json">{told}</script><script src="{host}" defer></script></body></html>'
    )
    return page.as_uri()


@pytest.fixture
def opened(browser, address):
    page = browser.new_page(viewport={"width": 900, "height": 900})
    noticed = listen(page)
    yield page, noticed
    page.close()


def visit(page, address):
    page.goto(address)
    page.wait_for_function("document.documentElement.dataset.anyhost")
    return page.locator(".ve"), page.locator(".ve-says")


def waits_for(page, says, words):
    page.wait_for_function("([e, words]) => e.innerText.includes(words)", arg=[says.element_handle(), words])


def test_scenes_shapes_and_cells(opened, address):
    page, noticed = opened
    from playwright.sync_api import expect

    explorer, says = visit(page, address)
    rows = explorer.locator("tbody tr")
    assert "The box kept for the " in says.inner_text() and "fits better" in says.inner_text()
    explorer.get_by_label("on its corner").check()
    expect(rows).to_have_count(1, timeout=20_000)
    explorer.get_by_label("object to add").select_option("star")
    explorer.get_by_role("button", name="Add").click()
    expect(rows).to_have_count(2, timeout=20_000)
    waits_for(page, says, "The box kept for the star")
    explorer.get_by_role("button", name="Remove").click()
    expect(rows).to_have_count(1, timeout=20_000)
    explorer.get_by_role("button", name="Remove").click()  # the last one stays
    turn = explorer.get_by_label("Turn")
    turn.fill("0")  # on its side it is a square again
    waits_for(page, says, "The box kept for the rectangle scores")
    explorer.get_by_role("button", name="Start again").click()
    page.wait_for_function("e => e.value === '45'", arg=turn.element_handle())

    cell = explorer.get_by_label("cell", exact=True)
    cell.focus()
    page.keyboard.press("ArrowRight")
    waits_for(page, says, "Its first box")
    assert explorer.get_by_label("one cell").is_checked()
    before = says.inner_text()
    page.keyboard.press("ArrowDown")
    page.wait_for_function("([e, words]) => e.innerText !== words", arg=[says.element_handle(), before])
    assert noticed == QUIET


def test_what_is_in_front_is_grabbed(opened, address):
    """Pressing an object brings it to the front, by mouse and by key, and the focus stays on it."""
    page, noticed = opened
    explorer, says = visit(page, address)
    explorer.get_by_label("covered").check()
    waits_for(page, says, "the star")
    square = explorer.get_by_label("rectangle, object 2")
    square.focus()
    for _ in range(3):
        page.keyboard.press("Shift+ArrowLeft")
    waits_for(page, says, "the rectangle")
    moved = "e => e.getAttribute('aria-valuenow') === '74' && e === document.activeElement"
    page.wait_for_function(moved, arg=square.element_handle())  # the words may be ahead of the last press
    star = explorer.get_by_label("star, object 1")
    star.focus()
    page.keyboard.press("ArrowUp")
    waits_for(page, says, "the star")
    page.wait_for_function("document.activeElement.getAttribute('aria-valuetext').includes('y 63')")
    assert noticed == QUIET


@pytest.mark.parametrize(
    ("lacks", "says_so"),
    [
        ("delete window.DecompressionStream", "DecompressionStream"),
        ("HTMLCanvasElement.prototype.getContext = () => null", "a canvas"),
    ],
)
def test_a_browser_that_lacks_something_shows_the_figure(opened, address, lacks, says_so):
    page, noticed = opened
    page.add_init_script(lacks)
    explorer, says = visit(page, address)
    assert says.inner_text() == (
        f"The live detector needs {says_so}, which this browser lacks: here is a picture of it."
    )
    assert explorer.locator("img").evaluate("e => e.naturalWidth") == 384
    assert explorer.locator("img").get_attribute("alt")
    assert noticed == QUIET
