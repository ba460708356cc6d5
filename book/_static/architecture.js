// The picture of the architecture comes alive: a part that is pointed at, touched or reached by the tab key tells what it
// does, its chapters, its file and its shapes.  All of that was written by book/architecture.py; the titles of chapters,
// and which of them exist, come from the menu of the book.
(() => {
  const figure = document.querySelector(".architecture");
  if (!figure) return;
  const caption = figure.querySelector("figcaption");
  const parts = [...figure.querySelectorAll(".part")];
  const numbers = (text) => text.split(" ").filter(Boolean).map(Number);
  const page = /\/notebooks\/(\d+)_/.exec(location.pathname); // null: not a chapter
  const here = page ? Number(page[1]) : null;

  const chapters = new Map(); // number -> its link in the menu
  for (const link of document.querySelectorAll(".bd-sidebar-primary a[href]")) {
    const title = /^(\d+)\. /.exec(link.textContent.trim());
    if (title) chapters.set(Number(title[1]), link);
  }

  /** An element with children: make("p", "text", child) */
  function make(tag, ...children) {
    const element = document.createElement(tag);
    element.append(...children);
    return element;
  }

  /** A chapter by its title; a link, unless it is this page. */
  function chapter(number) {
    const title = chapters.get(number).textContent.trim();
    if (number === here) return make("span", `${title} (this page)`);
    const link = make("a", title);
    link.href = chapters.get(number).href;
    return link;
  }

  function tell(part, start = "") {
    const { name, says, file, large, small } = part.dataset;
    const written = numbers(part.dataset.chapters).filter((n) => chapters.has(n));
    const lines = [make("p", start, make("b", name), `. ${says}`)];
    lines.push(...written.map((n) => make("p", "Chapter ", chapter(n))));
    lines.push(make("p", "File: ", make("code", `vfnet_edu/${file}`)));
    lines.push(make("p", `VFNet R-50, 800 × 1333 pixels: ${large}.`));
    lines.push(make("p", `vfnet_tiny, 128 × 128 pixels: ${small}.`));
    caption.replaceChildren(...lines);
    for (const other of parts) other.classList.toggle("shown", other === part);
  }

  const mine = parts.filter((part) => numbers(part.dataset.chapters).includes(here));
  for (const part of mine) {
    part.classList.add("here");
    part.setAttribute("aria-label", `${part.dataset.name}: you are here`);
  }
  const all = numbers(figure.dataset.whole).includes(here);
  if (all) figure.classList.add("here");

  let kept = mine[0]; // what is told while nothing is pointed at
  function rest() {
    if (kept) return tell(kept, kept === mine[0] ? "You are here: " : "");
    const start = all ? "You are here: all of it. " : "From an image to boxes. ";
    const how = make("span", "Point at a part, or go from part to part with the tab key.");
    how.className = "how"; // not on paper
    caption.replaceChildren(make("p", start, how));
    for (const part of parts) part.classList.remove("shown");
  }

  for (const part of parts) {
    const keep = () => {
      kept = part;
      tell(part);
    };
    part.addEventListener("pointerenter", () => tell(part));
    part.addEventListener("pointerleave", rest);
    part.addEventListener("focus", keep);
    part.addEventListener("click", keep);
  }
  rest();
})();
