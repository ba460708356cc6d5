"""The look of every page we write: one style sheet, and the few parts that pages are made of.

A page is one html file that needs no network and no script, light or dark like the reader's screen, wide or narrow.
Arguments called `text`, `title`, `rows` or `numbers` may come from a stranger's file and are escaped here; `markup` is
put in as it is: whoever makes it escapes what goes into it.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark;
  --ink: #1d2733; --soft: #5b6774; --line: #dfe4ea; --page: #f6f8fa; --card: #fff; --bar: #3b74b8; --bar2: #6aa896;
  --error: #b3261e; --warning: #96590a; --note: #4a6785; --good: #1b7a4b; }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e6ebf0; --soft: #9aa7b4; --line: #2f3a46; --page: #12181f; --card: #1a222b; --bar: #6ea3e0; --bar2: #6fb7a5;
  --error: #f0857d; --warning: #e0a84a; --note: #8fb0cf; --good: #58bb8a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem; max-width: 76rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { margin: .2rem 0; font-size: 1.5rem; } h2 { margin: 2rem 0 .6rem; font-size: 1.1rem; }
h3 { margin: 0 0 .5rem; font-size: .95rem; } p { margin: .2rem 0; }
.soft, figcaption, summary { color: var(--soft); font-size: .88rem; }
code, pre { font: 13px/1.5 ui-monospace, monospace; } pre { margin: 0; white-space: pre-wrap; }
summary { cursor: pointer; } ul { margin: .3rem 0 0; padding-left: 1.2rem; font-size: .88rem; }

/* cards, side by side where there is room */
.grid { display: grid; gap: 1rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, var(--least, 25rem)), 1fr)); }
.three { --least: 19rem; align-items: stretch; } .three .card { display: flex; flex-direction: column; }
.card, figure { margin: 0; padding: .7rem 1rem; min-width: 0; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; }
.card + .card { margin-top: .6rem; } .apart { margin: 1rem 0; } .grid > .card { margin-top: 0; }
.scroll { overflow-x: auto; }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1rem 0; } .tiles .card { margin: 0; min-width: 6.5rem; }
.tiles b { display: block; font-size: 1.5rem; line-height: 1.3; }

/* what needs attention */
.error, .warning, .note, .good { border-left: 4px solid var(--tone); }
.error { --tone: var(--error); } .warning { --tone: var(--warning); }
.note { --tone: var(--note); } .good { --tone: var(--good); }
.level { margin-right: .4rem; color: var(--tone); font-size: .8rem; font-weight: 600; letter-spacing: .04em;
  text-transform: uppercase; }
.verdict { display: inline-block; margin-top: .6rem; padding: .3rem .9rem; border: 0; border-radius: 99px;
  background: var(--tone); color: var(--page); font-weight: 600; }

/* pictures */
figure { padding: .7rem; } figcaption { margin-top: .5rem; } figure.wide { grid-column: 1 / -1; max-width: 54rem; }
img { display: block; width: 100%; height: auto; border-radius: 6px; background: #fff; }
img.photo { aspect-ratio: 4 / 3; object-fit: contain; background: var(--page); }
.dot { display: inline-block; width: .7em; height: .7em; margin-right: .3em; border-radius: 50%; }
.dotted { display: inline-block; margin-left: .6em; }

/* tables */
table { border-collapse: collapse; width: 100%; } tr:last-child td { border-bottom: 0; }
th, td { padding: .2rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
:is(th, td):first-child { padding-left: 0; } :is(th, td):last-child { padding-right: 0; }
.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
table.facts td:first-child { width: 1%; color: var(--soft); white-space: nowrap; }
@media (max-width: 30rem) { th, td { padding: .2rem .25rem; } table { font-size: .88rem; } }

/* bars: upright in histograms, lying down for classes */
.bar { min-width: 1px; height: 7px; border-radius: 3px; background: var(--bar); } .bar + .bar { margin-top: 2px; }
.bar.val { background: var(--bar2); } .key { display: inline-block; width: 22px; margin: 0 .4rem .1rem .9rem; }
.histogram, .axis { display: flex; gap: 4px; }
.histogram > *, .axis > * { flex: 1; min-width: 0; color: var(--soft); font-size: 11px; text-align: center;
  white-space: nowrap; }
.histogram { flex: 1; min-height: 10rem; } .axis { padding-top: .2rem; border-top: 1px solid var(--line); }
.histogram > * { display: flex; flex-direction: column; justify-content: flex-end; }
.histogram .bar { border-radius: 3px 3px 0 0; }
.classes { columns: 2 25rem; column-gap: 2rem; }
.classes > div { display: grid; grid-template-columns: minmax(5rem, 30%) 1fr auto; gap: .6rem; align-items: center;
  padding: 1px 0; break-inside: avoid; font-size: .88rem; }
.classes .name { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.classes .n { min-width: 5rem; color: var(--soft); }
"""

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body><main>
<p class="soft">{kind}</p>
<h1>{title}</h1>
{body}
</main></body></html>
"""


def page(kind: str, title: str, markup: Iterable[str]) -> str:
    """The whole file.

    Args:
        kind: what sort of page it is, in small letters above the title.
        markup: the body, part by part.
    """
    return PAGE.format(kind=escape(kind), title=escape(title), style=STYLE, body="\n".join(markup))


def card(*markup: str, kind: str = "") -> str:
    """A box. `kind` adds classes of the style sheet: ``error``, ``warning``, ``note`` and ``good`` colour its edge."""
    return f'<div class="card {kind}">{"".join(markup)}</div>'


def grid(markup: Iterable[str], kind: str = "") -> str:
    """Cards side by side: two abreast on a wide screen, with `kind` = ``three`` three."""
    return "\n".join([f'<div class="grid {kind}">', *markup, "</div>"])


def figure(markup: str, caption: str, kind: str = "") -> str:
    """A picture in its box; `caption` is markup too. `kind` = ``wide`` takes the whole line of a grid."""
    return f'<figure class="{kind}">{markup}<figcaption>{caption}</figcaption></figure>'


def tiles(numbers: Mapping[str, str]) -> str:
    """{what: value} -> one small box for each, the value large."""
    boxes = "".join(card(f"<b>{escape(value)}</b>{escape(what)}") for what, value in numbers.items())
    return f'<div class="tiles">{boxes}</div>'


def table(rows: Sequence[Sequence[str]], numeric: Sequence[int] = ()) -> str:
    """The first row is the head; the columns `numeric` are aligned to the right."""
    return f'<div class="scroll"><table>{_rows(rows[:1], "th", numeric)}{_rows(rows[1:], "td", numeric)}</table></div>'


def facts(numbers: Mapping[str, str]) -> str:
    """{what: value} -> a table of two columns without a head."""
    return f'<table class="facts">{_rows(numbers.items(), "td")}</table>'


def _rows(rows: Iterable[Sequence[str]], tag: str, numeric: Sequence[int] = ()) -> str:
    lines = []
    for row in rows:
        cells = (f"<{tag}{' class=n' * (i in numeric)}>{escape(text)}</{tag}>" for i, text in enumerate(row))
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return "".join(lines)


def folded(text: str, markup: str) -> str:
    """`markup` that shows when the reader clicks on `text`."""
    return f"<details><summary>{escape(text)}</summary>{markup}</details>"


def bullets(texts: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in texts)}</ul>"
