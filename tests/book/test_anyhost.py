"""The static host of the explorers, on a made-up page: what an explorer may rely on, and what is seen if one fails."""

import base64
import json

import pytest
from built import ROOT, listen

COUNTER = """
export default () => ({
  initialize({ model }) { model.set("log", [...model.get("log"), "initialize"]); return () => (window.gone = true); },
  render({ model, el }) {
    const button = document.createElement("button"), seen = document.createElement("output");
    const draw = () => (seen.textContent = `${model.get("n")} ${model.get("log").join()}`);
    let once = 0;
    const first = (who, value) => { once += 1; model.off("change:n", first); el.dataset.first = `${once} ${value}`; };
    model.on("change:n", first);
    model.on("change:n change:log", draw);
    model.on("change", () => (el.dataset.any = Number(el.dataset.any ?? 0) + 1));
    button.onclick = () => { model.set("n", model.get("n") + 1); model.set("n", model.get("n")); };
    if (model.get("raw")) el.dataset.raw = model.get("raw").getUint8(1);
    draw();
    el.append(button, seen);
  },
});"""
FAILS = 'export default { render() { throw new Error("no <b>luck</b>"); } };'
FAILS_LATER = 'export default { render({ model, el }) { model.on("change:n", () => { throw new Error("later"); }); \
    el.append(Object.assign(document.createElement("button"), { onclick: () => model.set("n", 1) })); } };'


def widget(esm, buffers=(), **state):
    state = {"_esm": esm, "_css": ".x{color:red}", "log": [], "n": 0, **state}
    return {"model_module": "anywidget", "model_name": "AnyModel", "state": state, "buffers": list(buffers)}


@pytest.fixture
def opened(browser, tmp_path):
    """opened(models, views) -> the page and what its console said"""
    pages = []

    def open_(models, views):
        kind = "application/vnd.jupyter.widget"
        shown = "".join(f'<script type="{kind}-view+json">{{"model_id": "{v}"}}</script>' for v in views)
        told = json.dumps({"state": models}).replace("</", "<\\/")  # as the book embeds it
        state = f'<script type="{kind}-state+json">{told}</script>'
        script = (ROOT / "book/_static/anyhost.js").as_uri()
        (tmp_path / "page.html").write_text(
            f'<html><body>{shown}{state}<script src="{script}" defer></script></body></html>'
        )
        page = browser.new_page()
        pages.append(page)
        noticed = listen(page)
        page.goto((tmp_path / "page.html").as_uri())
        page.wait_for_function("document.documentElement.dataset.anyhost")
        return page, noticed

    yield open_
    for page in pages:
        page.close()


def test_views_share_a_model(opened):
    raw = {"path": ["raw"], "encoding": "base64", "data": base64.b64encode(b"\x01\x2a").decode()}
    page, noticed = opened({"a": widget(COUNTER, [raw], raw=None), "b": widget(COUNTER)}, ["a", "a", "b"])
    hosts, words = page.locator(".anyhost"), page.locator(".anyhost output")
    page.locator("button").nth(0).click()
    page.locator("button").nth(1).click()
    assert words.all_inner_texts() == ["2 initialize", "2 initialize", "0 initialize"]  # initialized once, drawn twice
    assert [hosts.nth(i).get_attribute("data-first") for i in range(3)] == ["1 1", "1 1", None]  # `off` while called
    assert hosts.nth(0).get_attribute("data-any") == "2"  # setting what is set changes nothing
    assert hosts.nth(0).get_attribute("data-raw") == "42" and hosts.nth(2).get_attribute("data-raw") is None
    assert page.locator("style").count() == 1
    assert page.evaluate("document.documentElement.dataset.anyhost") == "ready"
    assert noticed == {"errors": [], "failed": [], "elsewhere": []}
    page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide'))")
    assert page.evaluate("window.gone")


def test_what_fails_says_so_and_the_rest_goes_on(opened):
    slider = {"model_module": "@jupyter-widgets/controls", "state": {}}
    models = {"bad": widget(FAILS), "late": widget(FAILS_LATER), "good": widget(COUNTER), "slider": slider}
    page, noticed = opened(models, ["bad", "late", "good", "slider", "nowhere"])
    assert page.evaluate("document.documentElement.dataset.anyhost") == "failed"
    assert page.locator("[role=alert]").all_inner_texts() == ["This explorer stopped: no <b>luck</b>"]
    assert page.locator(".anyhost-needs-kernel").count() == 2
    page.locator(".anyhost button").nth(1).click()
    assert page.locator(".anyhost output").inner_text() == "1 initialize"
    page.locator(".anyhost button").nth(0).click()
    assert page.locator("[role=alert]").last.inner_text() == "This explorer stopped: later"
    assert len(noticed["errors"]) == 2


def test_names_from_data_stay_text(opened):
    """A class or a scene may be called anything: it is shown, and does nothing."""
    import torch

    import vfnet_edu as vf
    from vfnet_edu.widgets import PyramidExplorer, RankingExplorer
    from vfnet_edu.widgets.ranking import ranking_scene

    nasty = "<img src=x onerror='window.harm = 1'><b>ring"
    model = vf.build(vf.recipes.vfnet_tiny(), (nasty, "other")).eval()
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    target = {"boxes": torch.tensor([[8.0, 8, 40, 40]]), "labels": torch.tensor([0])}
    boxes = torch.tensor([[8.0, 8, 40, 40], [10.0, 8, 44, 40]])
    scores = {nasty: torch.rand(2, 2), "varifocal": torch.rand(2, 2)}
    explorers = {
        "pyramid": PyramidExplorer.of(model, image, target),
        "ranking": RankingExplorer([ranking_scene(nasty, image, target, 0, boxes, scores, model.classes)] * 2),
    }
    states = {name: {k: v for k, v in w.get_state().items() if k != "layout"} for name, w in explorers.items()}
    models = {name: {"model_module": "anywidget", "state": state} for name, state in states.items()}
    page, noticed = opened(models, list(models))
    assert noticed == {"errors": [], "failed": [], "elsewhere": []}
    assert page.locator("img, b", has_text="ring").count() == 0 and page.locator("img[src=x]").count() == 0
    assert not page.evaluate("window.harm")
    assert "<b>ring" in page.locator("section.ve").nth(1).inner_text()
