"""The picture of the architecture: on the first page and at the head of every chapter, alive for mouse and keyboard."""

import pytest
from built import listen, settle

FIRST = "book/intro.html"


@pytest.fixture
def open_page(site, browser):
    """open_page(name): the figure of a page; in the end nothing went wrong there."""
    seen = []

    def visit(name: str):
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        seen.append((page, listen(page)))
        page.goto((site / name).as_uri())
        settle(page)
        return page.locator("figure.architecture")

    yield visit
    for page, noticed in seen:
        assert noticed == {"errors": [], "failed": [], "elsewhere": []}
        page.close()


def test_the_first_page(open_page):
    figure = open_page(FIRST)
    assert figure.count() == 1 and figure.locator(".here").count() == 0
    says = figure.locator("figcaption")
    assert "Point at a part" in says.inner_text()
    figure.locator("[data-key=star]").hover()
    text = says.inner_text().replace("\N{NO-BREAK SPACE}", " ")
    assert "ops/star/operator.py" in text and "P3 256 × 100 × 168" in text
    assert "11_star.html" in says.locator("a").first.get_attribute("href")
    figure.page.mouse.move(2, 2)
    assert "Point at a part" in says.inner_text()


def test_keyboard(open_page):
    figure = open_page(FIRST)
    parts = figure.locator(".part")
    parts.first.focus()
    told = []
    for _ in range(parts.count()):
        told.append(figure.locator("figcaption b").inner_text())
        figure.page.keyboard.press("Tab")
    assert told[0] == "image" and len(set(told)) == parts.count()


def test_a_part_without_a_chapter_tells_its_file_alone(open_page):
    figure = open_page(FIRST)
    figure.locator("[data-key=cls_tower]").hover()
    says = figure.locator("figcaption")
    assert "models/layers.py" in says.inner_text() and says.locator("a").count() == 0


def test_every_chapter_says_where_you_are(seen, chapter):
    found = seen(chapter)
    assert found["pictures_of_it_all"] == 1 and found["here"]
    assert "you are here" in found["says_here"].lower()
