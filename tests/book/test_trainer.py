"""The built chapter 10: the page itself teaches, side by side, and says what has come of it."""

import pytest
from built import listen, settle


@pytest.fixture
def trainer(site, browser):
    path = site / "notebooks/10_ranking_proven.html"
    if not path.exists():
        pytest.skip("chapter 10 is not built")
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True)
    page = context.new_page()
    noticed = listen(page)
    page.goto(path.as_uri())
    settle(page)
    yield page.locator(".ve[aria-label='Training explorer']")
    assert noticed == {"errors": [], "failed": [], "elsewhere": []}
    context.close()


def says(trainer, start: str):
    """Wait until the line in words begins so."""
    found = trainer.locator(".ve-says")
    found.page.wait_for_function(
        "([e, start]) => e.textContent.startsWith(start)", arg=[found.element_handle(), start], timeout=60_000
    )
    return found.inner_text()


def test_teach_and_start_again(trainer):
    teach, again = trainer.get_by_role("button").all()
    assert "No box is ranked yet" in says(trainer, "Step 0")
    teach.focus()
    trainer.page.keyboard.press("Enter")
    assert "Both that are asked for q lead" in says(trainer, "Step 120")
    curves = trainer.locator("svg[role=img] path").all()
    assert len(curves) == 4 and all(len(curve.get_attribute("d")) > 120 for curve in curves)
    again.tap()
    says(trainer, "Step 0")


def test_a_later_step_is_taught_first(trainer):
    says(trainer, "Step 0")
    trainer.locator("input[type=range]").evaluate("e => { e.value = 30; e.dispatchEvent(new Event('input')) }")
    assert "asked for q, QFL with 0." in says(trainer, "Step 30")
