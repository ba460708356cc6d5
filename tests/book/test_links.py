"""Every link of the built files: it leads somewhere inside the book, or it is a proper address outside of it."""

import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from built import ROOT, anchors

OTHER_MACHINES = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*\.[a-z]{2,}")
REGISTRIES = re.compile(
    r"(^|\.)(pypi\.org|pythonhosted\.org|npmjs\.(com|org)|debian\.org|conda\.(io|org)|anaconda\.org)$"
)
POINTING = {"href", "src", "srcset", "poster", "action"}


class Links(HTMLParser):
    """(tag, attribute, target) of everything in a page that points somewhere."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [(tag, key, value or "") for key, value in attrs if key in POINTING]


@cache
def links(path: Path) -> list[tuple[str, str, str]]:
    parser = Links()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser.found


def test_inside(site, page):
    """A file of the book, and in it the very heading; the path is relative, so the book may lie in any folder."""
    dead = []
    for _, key, target in links(site / page):
        parts = urlsplit(target)
        if parts.scheme or (key == "action" and not target):
            continue
        path = (site / page).parent / unquote(parts.path) if parts.path else site / page
        inside = not parts.netloc and not target.startswith("/") and path.resolve().is_relative_to(site)
        heading = unquote(parts.fragment)  # "#" alone is the top
        if not inside or not path.is_file() or (heading and heading not in anchors(path)):
            dead.append(target)
    assert dead == []


def test_outside(site, page):
    """Only its syntax: this test asks nobody."""
    wrong = []
    for tag, _, target in links(site / page):
        parts = urlsplit(target)
        if not parts.scheme or (parts.scheme == "data" and tag in ("img", "link")):
            continue
        mail = parts.scheme == "mailto" and "@" in parts.path
        host = parts.hostname or ""
        address = parts.scheme in ("https", "http") and OTHER_MACHINES.fullmatch(host) and not re.search(r"\s", target)
        if tag != "a" or not (mail or address) or REGISTRIES.search(host):
            wrong.append(f"{tag}: {target}")
    assert wrong == []


def test_no_place_on_the_machine_that_built_it(site, page):
    assert str(ROOT) not in (site / page).read_text(encoding="utf-8")


def test_style_sheets_and_the_search_index(site):
    """What a style sheet asks for is there, and the search knows no page that is not."""
    missing = []
    for sheet in (site / "_static").rglob("*.css"):
        for target in re.findall(r"url\(\s*['\"]?([^'\")]+)", sheet.read_text(encoding="utf-8")):
            parts = urlsplit(target)
            if not parts.scheme and parts.path and not (sheet.parent / unquote(parts.path)).is_file():
                missing.append(f"{sheet.name}: {target}")
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    (names,) = re.findall(r'"?docnames"?:\s*\[([^\]]*)\]', index)
    missing += [name for name in re.findall(r'"([^"]+)"', names) if not (site / f"{name}.html").is_file()]
    assert names and missing == []
