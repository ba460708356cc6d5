"""The pages of questions and for teachers: nothing is missing, links meet headings, numbers are the chapters' own."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from chapters import GIVEN, ROOT, numbers, read, value_of

PAGES = [ROOT / "book" / name for name in ("questions.md", "teach.md")]
LINK = re.compile(r"\]\(([^)#\s]*)#([^)\s]+)\)")
QUESTIONS = re.split(r"^### ", PAGES[0].read_text(encoding="utf-8"), flags=re.M)[1:]
each = pytest.mark.parametrize("text", QUESTIONS, ids=lambda text: text.partition(".")[0])


def as_markdown(path: Path) -> str:
    """The prose of a page or of a notebook, without code blocks: a comment in code looks like a heading."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = "\n\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def anchors(path: Path) -> set[str]:
    """What a link may end in: the headings down to the third level (`myst_heading_anchors`), spelt as on GitHub."""
    headings = re.findall(r"^#{1,3} (.+)$", as_markdown(path), re.M)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"[*`]", "", h)).replace(" ", "-").lower() for h in headings}


def test_all_thirty_in_order():
    assert [int(text.partition(".")[0]) for text in QUESTIONS] == [*range(1, 31)]


@each
def test_a_question_names_its_chapter_and_its_threads(text):
    answer, _, rest = text.partition("*Answered in* ")
    chapters, _, threads = rest.partition("*Asked in* ")
    assert len(answer.split("\n", 1)[1].split()) >= 15, "no answer"
    assert any(target.startswith("../notebooks/") for target, _ in LINK.findall(chapters)), "no link to a heading"
    assert re.search(r"\(https://github\.com/[\w.-]+/[\w.-]+/(issues|pull)/\d+\)", threads), "no thread"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_meets_a_heading(page):
    links = LINK.findall(page.read_text(encoding="utf-8"))
    assert links
    known = {target: anchors((page.parent / target).resolve() if target else page) for target in {t for t, _ in links}}
    assert [f"{target}#{anchor}" for target, anchor in links if anchor not in known[target]] == []


@each
def test_a_number_stands_in_the_chapter_with_the_same_key(text):
    """Change it there, and it must change here: `61.4<!--ap-->` is looked for in a chapter that the answer links."""
    chapters = {target for target, _ in LINK.findall(text) if target.endswith(".ipynb")}
    there = {pair for target in chapters for pair in numbers(read((PAGES[0].parent / target).resolve()))}
    answer = text.partition("\n")[2].partition("*Answered in* ")[0]
    for printed, key in numbers(SimpleNamespace(cells=[SimpleNamespace(cell_type="markdown", source=answer)])):
        if key is None:
            assert "." not in printed and abs(value_of(printed)) < 20, f"where does {printed} come from?"
        else:
            assert key in GIVEN or (printed, key) in there, f"no chapter that is linked says {printed} ({key})"


def test_a_lesson_takes_as_long_as_the_chapters_say():
    told = re.findall(r"\[chapter \d+\]\((\S+?)\) \((\d+) min\)", PAGES[1].read_text(encoding="utf-8"), re.I)
    assert len(told) >= 15
    for target, minutes in told:
        header = re.search(r"\*\*Time\.\*\* (\d+)", read((PAGES[1].parent / target).resolve()).cells[0].source)
        assert header and header[1] == minutes, target
