"""Every page of the built book: no error, no request, readable by everybody, on a phone too, no dead link."""

import tomllib
from pathlib import Path
from urllib.parse import unquote, urlsplit

from built import CHAPTERS, ROOT, SITE, anchors, listen, settle


def test_quiet_and_alone(seen, page):
    found = seen(page)
    assert (found["errors"], found["failed"], found["elsewhere"]) == ([], [], [])


def test_formulas_explorers_pictures(seen, page):
    found = seen(page)
    assert found["unset"] == 0, f"{found['unset']} of {found['formulas']} formulas are not set"
    assert found["anyhost"] in ("ready", "none")
    assert found["broken"] == [] and found["no_alt"] == []


def test_axe_light_and_dark(seen, page):
    found = seen(page)
    assert found["theme"] in ({"light": "light", "dark": "dark"}, {"light": None, "dark": None})  # None: the redirect
    assert found["axe"] == {"structure": [], "light": [], "dark": []}


def test_fits_a_screen_and_a_phone(seen, page):
    found = seen(page)
    assert found["wide"] <= 0 and found["wide_on_a_phone"] <= 0, "the page scrolls sideways"


def test_links(seen, page):
    dead = []
    for link in seen(page)["links"]:
        parts = urlsplit(link)
        if parts.scheme != "file":
            assert parts.scheme in ("http", "https", "mailto"), link
            continue
        path = Path(unquote(parts.path))
        if not path.is_file() or (parts.fragment and unquote(parts.fragment) not in anchors(path)):
            dead.append(link.removeprefix(SITE.as_uri()))
    assert dead == []


def test_colab(seen, chapter):
    repository = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
    owner_and_name = repository.removeprefix("https://github.com/")
    notebook = chapter.removesuffix(".html") + ".ipynb"
    wanted = f"https://colab.research.google.com/github/{owner_and_name}/blob/main/{notebook}"
    assert (ROOT / notebook).exists() and wanted in seen(chapter)["links"]


def test_the_start_page_leads_on(site, browser):
    page = browser.new_page()
    page.goto((site / "index.html").as_uri())
    page.wait_for_url("**/book/intro.html")
    assert "VarifocalNet" in page.locator("article h1").inner_text()
    page.close()


def test_over_http(served, browser):
    """A chapter from a web server: nothing that works only from files, or only from a server."""
    page = browser.new_page()
    found = listen(page, served)
    page.goto(served + CHAPTERS[0])
    settle(page)
    assert found == {"errors": [], "failed": [], "elsewhere": []}
    assert page.evaluate("document.documentElement.dataset.anyhost") in ("ready", None)
    page.close()


def test_menus_on_a_phone(site, browser):
    """The two sidebars, which a phone hides, come when they are called."""
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto((site / CHAPTERS[0]).as_uri())
    settle(page)
    for button, link in (("primary", "nav a[href$='notation.html']"), ("secondary", "nav a[href^='#']")):
        page.locator(f".{button}-toggle").first.click()
        page.locator(f"#pst-{button}-sidebar-modal {link}").first.wait_for(timeout=5000)
        page.keyboard.press("Escape")
    page.close()
