"""The built book in a headless Chromium: what the tests of this folder share, and why they are skipped if they are."""

import functools
import http.server
import importlib.util
import json
import os
import shutil
import threading
from functools import cache

import pytest
from built import CHAPTERS, LOOK, PAGES, ROOT, SITE, listen, print_as_seen, settle

# no GPU, nobody's profile, and nothing that Chromium itself would like to tell or fetch
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip

# axe: preloading would fetch the style sheets again, which a page from a file must not. Colours are looked at in light
# and dark, the rest once. A kind of token has the same colours everywhere: so blocks of code, and signatures in the
# reference, that show no new kind are emptied before, which halves the time.
AXE = {"resultTypes": ["violations"], "preload": False}
STRUCTURE = AXE | {"rules": {"color-contrast": {"enabled": False}}}
COLOURS = AXE | {"runOnly": ["color-contrast", "link-in-text-block"]}
EMPTY_REPEATED = """() => {
  const seen = new Set();
  for (const block of document.querySelectorAll('.highlight, dt.sig')) {
    const ground = getComputedStyle(block.querySelector('pre') ?? block).backgroundColor;
    const kind = (e) => [e.tagName, e.className, e.parentElement.className, ground].join();
    const fresh = [...block.querySelectorAll('*')].map(kind).filter((k) => !seen.has(k));
    fresh.forEach((k) => seen.add(k));
    if (!fresh.length) block.replaceChildren();
  }
}"""

FOLLOWED = "scheme => [undefined, scheme].includes(document.documentElement.dataset.theme)"  # undefined: the redirect


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


@pytest.fixture(scope="session")
def served(site):
    """The address of a web server that has the book and that only this machine can reach."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="session")
def seen(site, browser):
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

        def axe(options):
            return [
                f"{v['id']}: {v['help']}: " + "; ".join(json.dumps(n["target"]) for n in v["nodes"][:5])
                for v in Axe().run(page, None, options).response["violations"]
            ]

        found["theme"], found["axe"] = {}, {"structure": axe(STRUCTURE)}
        page.set_viewport_size({"width": 390, "height": 844})
        page.wait_for_timeout(150)
        found["wide_on_a_phone"] = page.evaluate(LOOK)["wide"]
        found["paper"] = print_as_seen(page)
        page.set_viewport_size({"width": 1200, "height": 900})
        page.evaluate(EMPTY_REPEATED)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            page.wait_for_function(FOLLOWED, arg=scheme)  # a busy machine takes more than a moment
            page.wait_for_timeout(300)  # colours fade
            found["theme"][scheme] = page.evaluate("document.documentElement.dataset.theme")
            found["axe"][scheme] = axe(COLOURS)
        context.close()
        return found

    return visit


@pytest.fixture(scope="session")
def checkout_on_path():
    """An environment in which other Pythons import this checkout, installed or not."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
