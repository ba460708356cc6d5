"""Each explorer of each chapter, without a kernel: moved by mouse, keyboard and finger, it says something else."""

import pytest
from built import listen, settle

RANGE, HANDLE = "input[type=range]", "[role=slider]:not(input)"


@pytest.fixture
def explorers(site, browser, chapter):
    """The panels of a chapter, on a screen that can be touched."""
    context = browser.new_context(viewport={"width": 1200, "height": 900}, has_touch=True)
    page = context.new_page()
    noticed = listen(page)
    page.goto((site / chapter).as_uri())
    settle(page)
    found = page.locator(".anyhost .ve")
    if not found.count():
        pytest.skip("this chapter has no explorer")
    yield found
    assert noticed == {"errors": [], "failed": [], "elsewhere": []}
    context.close()


def controls(explorer):
    """The first handle of a picture and the first slider, if it has them: at least one."""
    found = [explorer.locator(kind).first for kind in (HANDLE, RANGE) if explorer.locator(kind).count()]
    assert found, "an explorer without anything to move"
    return found


def says(explorer) -> str:
    return explorer.locator(".ve-says").first.inner_text()


def way(control) -> tuple[float, float, float, float]:
    """From where it is to where it could be: (x0, y0, x1, y1) in pixels of the window."""
    control.scroll_into_view_if_needed()
    control.evaluate("e => e.scrollIntoView({block: 'center', behavior: 'instant'})")
    box = control.bounding_box()
    y = box["y"] + box["height"] / 2
    if control.evaluate("e => e.tagName !== 'INPUT'"):
        x = box["x"] + box["width"] / 2
        return x, y, x + 41, y + 23
    at = control.evaluate("e => (e.value - e.min) / (e.max - e.min)")
    left, width = box["x"] + 8, box["width"] - 16  # the middle of the thumb stays inside
    return left + at * width, y, left + (0.2 if at > 0.5 else 0.8) * width, y


def steps(x0, y0, x1, y1, count=8):
    return [(x0 + (x1 - x0) * i / count, y0 + (y1 - y0) * i / count) for i in range(1, count + 1)]


def each(explorers):
    return [explorers.nth(i) for i in range(explorers.count())]


def test_mouse(explorers):
    for explorer in each(explorers):
        for control in controls(explorer):
            before, mouse = says(explorer), explorer.page.mouse
            x0, y0, x1, y1 = way(control)
            mouse.move(x0, y0)
            mouse.down()
            for x, y in steps(x0, y0, x1, y1):
                mouse.move(x, y)
            mouse.up()
            explorer.page.wait_for_timeout(50)
            assert says(explorer) != before, f"the mouse moved {control.get_attribute('aria-label')!r} in vain"


def test_keyboard(explorers):
    for explorer in each(explorers):
        for control in controls(explorer):
            before = says(explorer)
            control.focus()
            for key in ["ArrowLeft"] * 4 + ["ArrowRight"] * 8 + ["ArrowUp"] * 4 + ["ArrowDown"] * 8:
                explorer.page.keyboard.press(key)  # it may stand at an end, or one step may not change the words
                if says(explorer) != before:
                    break
            assert says(explorer) != before, f"no arrow key moves {control.get_attribute('aria-label')!r}"


def test_finger(explorers):
    """As a finger does it: events of touch, which scroll the page where an explorer forgets to hold on to them."""
    touch = explorers.page.context.new_cdp_session(explorers.page)

    def send(kind, *points):
        points = [{"x": x, "y": y} for x, y in points]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    for explorer in each(explorers):
        for control in controls(explorer):
            before = says(explorer)
            x0, y0, x1, y1 = way(control)
            send("touchStart", (x0, y0))
            for point in steps(x0, y0, x1, y1):
                send("touchMove", point)
            send("touchEnd")
            explorer.page.wait_for_timeout(50)
            assert says(explorer) != before, f"a finger moved {control.get_attribute('aria-label')!r} in vain"


def test_names(explorers):
    """Whoever cannot see the picture hears what it is and what it shows."""
    for explorer in each(explorers):
        assert explorer.get_attribute("aria-label") and explorer.locator(".ve-says[aria-live=polite]").count() >= 1
        for control in controls(explorer):
            assert control.get_attribute("aria-label")
