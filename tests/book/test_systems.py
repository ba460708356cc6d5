"""The page of the systems: pictures whose words stay inside, and a comparison that works by keyboard."""

import pytest
from built import listen, settle

PAGE = "book/systems.html"
OUTSIDE = """() => [...document.querySelectorAll('.system svg')].flatMap(svg => {
  const view = svg.viewBox.baseVal;
  const head = svg.querySelector('use').getBBox().x + svg.querySelector('use').getBBox().width;
  return [...svg.querySelectorAll('text')].filter(text => {
    const box = text.getBBox();
    return box.x < view.x || box.y < view.y || box.y + box.height > view.y + view.height
      || box.x + box.width > Math.min(head, view.x + view.width);
  }).map(text => svg.querySelector('title').textContent + ': ' + text.textContent);
})"""


@pytest.fixture
def opened(site, browser):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    noticed = listen(page)
    page.goto((site / PAGE).as_uri())
    settle(page)
    yield page
    assert noticed == {"errors": [], "failed": [], "elsewhere": []}
    page.close()


def test_no_word_leaves_its_picture(opened):
    assert opened.locator(".system svg[role=img]").count() == 23
    assert opened.evaluate(OUTSIDE) == []


def test_letters_can_be_read_on_a_phone(opened):
    size = opened.evaluate("() => { const s = document.querySelector('.system svg'); return 10 * s.getScreenCTM().a }")
    assert size >= 9  # pixels of the smallest


def test_compare_by_keyboard(opened):
    control = opened.locator(".compare")
    first, second = (control.get_by_label(label) for label in ("From", "to"))
    assert control.locator("tbody tr").count() == 8 and "8 settings differ" in control.inner_text()
    second.focus()
    opened.keyboard.press("ArrowUp")  # vfnet_r50_ms_2x
    assert second.input_value() == "vfnet_r50_ms_2x"
    assert "data.augment.short_side" in control.inner_text() and "backbone.dcn" not in control.inner_text()
    first.select_option("vfnet_r50_ms_2x")
    assert "No settings differ" in control.inner_text() and control.locator("tbody tr").count() == 0
    first.select_option("vfnetx_r2_101_800")
    assert {"PAFPNConfig", "FPNConfig"} <= set(control.locator("td").all_inner_texts())


def test_links_of_a_card_lead_somewhere_by_keyboard(opened):
    card = opened.locator("#vfnet_r101_1x")
    against = card.get_by_role("link", name="vfnet_r50_1x")
    against.focus()
    opened.keyboard.press("Enter")
    assert opened.evaluate("location.hash") == "#vfnet_r50_1x"
    card.locator("summary").focus()
    opened.keyboard.press("Enter")
    assert "def vfnet_r101_1x" in card.locator("pre").inner_text()
