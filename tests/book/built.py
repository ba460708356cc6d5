"""Where the built book is, and how a test looks at one of its pages."""

import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "book/_build/html"
PAGES = sorted(p.relative_to(SITE).as_posix() for p in SITE.rglob("*.html") if "_static" not in p.parts)
CHAPTERS = [p for p in PAGES if p.startswith("notebooks/")]
LOCAL = ("file:", "data:", "blob:")


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
  unset: [...document.querySelectorAll('.math')].filter(
    e => !e.querySelector('mjx-container') || e.querySelector('mjx-merror')).length,
  links: [...document.querySelectorAll('a[href]')].map(a => a.href),
  no_alt: [...document.images].filter(i => !i.alt.trim()).map(i => i.src),
  broken: [...document.images].filter(i => !i.naturalWidth).map(i => i.src),
  anyhost: document.documentElement.dataset.anyhost ?? 'none',
  pictures_of_it_all: document.querySelectorAll('figure.architecture').length,
  here: document.querySelectorAll('figure.architecture.here, figure.architecture .part.here').length,
  says_here: document.querySelector('figure.architecture figcaption')?.innerText ?? '',
})"""

PAPER = 660  # CSS pixels of A4 between the margins, at most
PRINTED = """() => {
  const shown = (e) => e.checkVisibility({visibilityProperty: true}) && e.getClientRects().length > 0;
  const count = (selector) => [...document.querySelectorAll(selector)].filter(shown).length;
  const narrow = (e) => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX !== 'visible';
  const beyond = (e) => e.getBoundingClientRect().right > innerWidth + 1;
  const article = document.querySelector('article') ?? document.body;
  return {
    around: count('.bd-sidebar-primary, .bd-sidebar-secondary, .bd-header-article, .prev-next-area, .bd-footer'),
    controls: count('.anyhost :is(button, select, input), .copybtn, .headerlink'),
    folds: count('details:not([open]), details.hide'),
    panels: count('.anyhost .ve'),
    told: [...document.querySelectorAll('.anyhost .ve')].map(e => getComputedStyle(e, '::after').content),
    cut: [...article.querySelectorAll('pre, table, img, svg, .ve')].filter(shown).filter(
      (e) => narrow(e) || beyond(e)).map((e) => e.outerHTML.slice(0, 90)),
    theme: document.documentElement.dataset.theme,
    text: article.innerText.length,
  };
}"""


def print_as_seen(page) -> dict:
    """What would stand on paper; afterwards the page is on its screen again."""
    before = page.viewport_size
    page.set_viewport_size({"width": PAPER, "height": 960})
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    found = page.evaluate(PRINTED)
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")
    page.set_viewport_size(before)
    return found
