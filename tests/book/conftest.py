"""The built book in a headless Chromium: what the tests of this folder share, and why they are skipped if they are."""

import importlib.util
import json
import os
import re
import shutil
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "book/_build/html"
PAGES = sorted(p.relative_to(SITE).as_posix() for p in SITE.rglob("*.html") if "_static" not in p.parts)
CHAPTERS = [p for p in PAGES if p.startswith("notebooks/")]
LOCAL = ("file:", "data:", "blob:")
# no GPU, nobody's profile, and nothing that Chromium itself would like to tell or fetch
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


def pytest_generate_tests(metafunc):
    """`page`: every page of the book. `chapter`: the executed ones."""
    for name, paths in (("page", PAGES), ("chapter", CHAPTERS)):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, paths or ["not built"])


@pytest.fixture(scope="session")
def browser():
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("playwright not installed")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium found")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def site():
    """The folder of the built book."""
    if not (SITE / "index.html").exists():
        pytest.skip("build the book first: python book/build.py")
    return SITE


def settle(page):
    """Wait until formulas are set, explorers drawn, and pictures there; returns what was noticed meanwhile."""
    page.wait_for_function("document.readyState === 'complete'")
    page.evaluate("async () => { await window.MathJax?.startup?.promise; await document.fonts.ready }")
    if page.locator("script[type='application/vnd.jupyter.widget-view+json']").count():
        page.wait_for_function("document.documentElement.dataset.anyhost")


def listen(page, origin: str = "") -> dict[str, list[str]]:
    """Lists that fill while `page` works: what its console complains of, requests that failed or went elsewhere."""
    noticed = {"errors": [], "failed": [], "elsewhere": []}
    page.on("console", lambda m: m.type == "error" and noticed["errors"].append(m.text))
    page.on("pageerror", lambda e: noticed["errors"].append(str(e)))
    page.on("requestfailed", lambda r: noticed["failed"].append(r.url))
    page.on("response", lambda r: r.status >= 400 and noticed["failed"].append(r.url))

    def request(url):
        if not url.startswith(LOCAL) and not (origin and url.startswith(origin)):
            noticed["elsewhere"].append(url)

    page.on("request", lambda r: request(r.url))
    page.on("websocket", lambda w: request(w.url.replace("ws", "http", 1)))
    return noticed


@cache
def anchors(path: Path) -> frozenset[str]:
    """The ids of a page: what a link to it may end in."""
    return frozenset(re.findall(r'\sid="([^"]+)"', path.read_text(encoding="utf-8")))


LOOK = """() => ({
  wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  formulas: document.querySelectorAll('.math').length,
  unset: [...document.querySelectorAll('.math')].filter(e => !e.querySelector('mjx-container') || e.querySelector('mjx-merror')).length,
  links: [...document.querySelectorAll('a[href]')].map(a => a.href),
  no_alt: [...document.images].filter(i => !i.alt.trim()).map(i => i.src),
  broken: [...document.images].filter(i => !i.naturalWidth).map(i => i.src),
  anyhost: document.documentElement.dataset.anyhost ?? 'none',
})"""  # fmt: skip


@pytest.fixture(scope="session")
def seen(browser, site):
    """seen(page): everything that one visit tells. Opening a page is slow, so it is done once for all tests."""

    @cache
    def visit(name: str) -> dict:
        from axe_playwright_python.sync_playwright import Axe

        context = browser.new_context(viewport={"width": 1200, "height": 900}, color_scheme="light")
        page = context.new_page()
        found = listen(page)
        page.goto((site / name).as_uri())
        settle(page)
        found |= page.evaluate(LOOK)
        found["theme"], found["axe"] = {}, {}
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            page.wait_for_timeout(300)  # colours fade
            found["theme"][scheme] = page.evaluate("document.documentElement.dataset.theme")
            found["axe"][scheme] = [
                f"{v['id']}: {v['help']}: " + "; ".join(json.dumps(n["target"]) for n in v["nodes"][:5])
                for v in Axe().run(page, options={"resultTypes": ["violations"], "preload": False}).response["violations"]
            ]
        page.set_viewport_size({"width": 390, "height": 844})
        page.wait_for_timeout(150)
        found["wide_on_a_phone"] = page.evaluate(LOOK)["wide"]
        context.close()
        return found

    return visit


@pytest.fixture(scope="session")
def checkout_on_path():
    """An environment in which other Pythons import this checkout, installed or not."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
