"""The search of the book: from a file and from a web server it finds pages, and nothing leaves the machine."""

import pytest
from built import listen, settle

QUIET = {"errors": [], "failed": [], "elsewhere": []}


@pytest.mark.parametrize("where", ["file", "server"])
def test_varifocal_is_found(where, site, served, browser):
    origin = served if where == "server" else site.as_uri() + "/"
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    noticed = listen(page, served)
    page.goto(origin + "book/notation.html")
    settle(page)
    page.get_by_role("button", name="Search").first.click()
    page.keyboard.type("varifocal")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=varifocal")
    results = page.locator("#search-results li a")
    page.get_by_text("Search finished").wait_for()
    found = results.evaluate_all("links => links.map(a => a.href)")
    chapters = {link for link in found if "/notebooks/" in link}
    assert len(found) >= 8 and any("/09_" in link for link in chapters) and any("book/api/" in link for link in found)
    results.first.click()
    page.wait_for_load_state()
    assert page.locator("article h1").inner_text()
    assert noticed == QUIET
    page.close()


def test_nothing_is_found_politely(site, browser):
    page = browser.new_page()
    noticed = listen(page)
    page.goto((site / "search.html").as_uri() + "?q=zeppelin")
    page.get_by_text("did not match any documents").wait_for()
    assert page.locator("#search-results li").count() == 0 and noticed == QUIET
    page.close()
