// book/systems.md: choose two systems and see in which settings they differ, as `config.difference` says it.
// book/system_cards.py has written the settings of all rows into the page.

/** [setting, value in the first row, value in the second], where they differ. "": there is no such setting. */
function difference({ rows, settings }, first, second) {
  const [a, b] = [rows.indexOf(first), rows.indexOf(second)];
  return Object.entries(settings)
    .filter(([, values]) => values[a] !== values[b])
    .map(([key, values]) => [key, values[a], values[b]]);
}

(() => {
  const control = globalThis.document?.querySelector(".compare");
  if (!control) return;
  const data = JSON.parse(document.getElementById("settings").textContent);
  const selects = [...control.querySelectorAll("select")];
  const columns = [...control.querySelectorAll("thead th")];

  function cell(tag, text) {
    const element = document.createElement(tag);
    element.textContent = text;
    if (tag === "th") element.scope = "row";
    return element;
  }

  function show() {
    const names = selects.map((select) => select.value);
    const found = difference(data, ...names);
    columns.forEach((column, i) => {
      if (i) column.textContent = names[i - 1];
    });
    const rows = found.map(([key, ...values]) => {
      const row = document.createElement("tr");
      row.append(cell("th", key), ...values.map((value) => cell("td", value || "–")));
      return row;
    });
    control.querySelector("tbody").replaceChildren(...rows);
    control.querySelector("[aria-live]").textContent =
      found.length === 1 ? "One setting differs." : `${found.length || "No"} settings differ.`;
  }

  for (const select of selects) select.addEventListener("change", show);
  control.hidden = false;
  show();
})();
