"""A chapter on paper, as headless Chromium prints it: text and still pictures, nothing cut, nothing dead."""

import re

from built import CHAPTERS, PAPER, listen, print_as_seen, settle


def test_every_page(seen, page):
    paper = seen(page)["paper"]
    assert (paper["around"], paper["controls"], paper["folds"], paper["cut"]) == (0, 0, 0, [])


def test_explorers_are_still_pictures(seen, chapter):
    paper = seen(chapter)["paper"]
    assert len(paper["told"]) == paper["panels"] and all("still picture" in words for words in paper["told"])
    assert paper["text"] > 3000


def test_paper_is_white(site, browser):
    """Whoever reads in the dark prints black on white, and goes on reading in the dark."""
    page = browser.new_page(color_scheme="dark")
    page.goto((site / CHAPTERS[0]).as_uri())
    settle(page)
    assert print_as_seen(page)["theme"] == "light"
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.close()


def test_what_is_printed_of_a_chapter(site, browser):
    """Chromium's own printing. A solution that is open is printed, one that is folded is not."""
    name = next(name for name in CHAPTERS if "<summary>Solution" in (site / name).read_text(encoding="utf-8"))
    page = browser.new_page(viewport={"width": PAPER, "height": 960})
    noticed = listen(page)
    page.goto((site / name).as_uri())
    settle(page)
    pdf = page.pdf(format="A4", prefer_css_page_size=True)
    assert pdf.startswith(b"%PDF") and 2 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 40
    page.emulate_media(media="print")
    solution = page.locator("details", has=page.locator("summary", has_text="Solution")).first
    assert not solution.is_visible()
    solution.evaluate("e => { e.open = true }")
    assert solution.locator("pre").first.is_visible()
    assert noticed == {"errors": [], "failed": [], "elsewhere": []}
    page.close()
