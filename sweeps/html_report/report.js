// Draws the figures in the page's own colours, again where these change; sorts tables.
const dark = window.matchMedia("(prefers-color-scheme: dark)");
function colours() {
  const style = getComputedStyle(document.documentElement);
  return { text: style.getPropertyValue("--text").trim(), line: style.getPropertyValue("--line").trim(), orange: style.getPropertyValue("--orange").trim() };
}
function dressed(figure) {
  const layout = figure.layout;
  const { text, line, orange } = colours();
  const result = { ...layout };
  // All of them name published models.
  if (layout.annotations) result.annotations = layout.annotations.map((note) => ({ ...note, font: { ...note.font, color: orange } }));
  for (const name of Object.keys(layout).concat(["xaxis", "yaxis"])) {
    if (/^[xy]axis\d*$/.test(name)) {
      result[name] = { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true, ...layout[name] };
      if (result[name].title) result[name].title = { standoff: 12, ...result[name].title };
    }
  }
  return {
    margin: { l: 62, r: 18, t: figure.layout.showlegend ? 44 : 14, b: 48 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    ...result, legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", ...layout.legend }, font: { color: text, size: 12 },
  };
}
const LETTER = 6.6;  // Pixels that a letter takes, about.
function longest(texts) {
  return LETTER * Math.max(...texts.map((text) => text.length));
}
// Where the axis of bars ends, so that the words beside each bar have room, and the longest bar what is left.
function endOf(bars, width) {
  const place = Math.max(width - longest(bars.y) - 40, 100);
  return Math.max(...bars.x.map((x, k) => x * place / Math.max(place - longest([bars.text[k]]) - 8, place / 4)));
}
function draw() {
  for (const hint of document.querySelectorAll(".more")) {
    const box = hint.closest("section").querySelector(".scroll");
    hint.hidden = box.scrollHeight <= box.clientHeight && box.scrollWidth <= box.clientWidth;
  }
  for (const source of document.querySelectorAll("script.figure")) {
    const figure = JSON.parse(source.textContent);
    const place = document.getElementById(source.dataset.for);
    const narrow = place.clientWidth < 560;
    if (narrow && figure.layout.grid && figure.layout.grid.columns > 1) {
      const count = figure.layout.grid.rows * figure.layout.grid.columns;
      figure.layout.grid = { ...figure.layout.grid, rows: count, columns: 1 };
      place.style.height = `${60 + 230 * count}px`;
    }
    const bars = figure.data.find((trace) => trace.textposition === "outside");
    if (bars) figure.layout.xaxis.range = [0, endOf(bars, place.clientWidth)];
    for (const trace of figure.data) if (trace.texttemplate) trace.textfont = { color: colours().text };
    Plotly.react(place, figure.data, dressed(figure), { responsive: true, displaylogo: false, displayModeBar: false });
  }
}
function sort(table, column, ascending) {
  const key = (row) => {
    const cell = row.cells[column];
    const text = cell.dataset.key ?? cell.textContent;
    return text === "" ? null : isNaN(text) ? text : Number(text);
  };
  const rows = Array.from(table.tBodies[0].rows);
  rows.sort((one, other) => {
    const [a, b] = [key(one), key(other)];
    if (a === null || b === null) return (a === null) - (b === null);
    return (a < b ? -1 : a > b ? 1 : 0) * (ascending ? 1 : -1);
  });
  table.tBodies[0].append(...rows);
}
for (const table of document.querySelectorAll("table.sortable")) {
  table.tHead.rows[0].querySelectorAll("th").forEach((head, column) => {
    let ascending = false;
    head.addEventListener("click", () => { ascending = !ascending; sort(table, column, ascending); });
  });
}
draw();
dark.addEventListener("change", draw);
function printed(on) {  // Paper is light, and nothing on it unfolds.
  document.documentElement.classList.toggle("printed", on);
  for (const part of document.querySelectorAll("details")) part.open = on;
  draw();
}
window.addEventListener("beforeprint", () => printed(true));
window.addEventListener("afterprint", () => printed(false));
let width = window.innerWidth;
window.addEventListener("resize", () => { if (Math.abs(window.innerWidth - width) > 80) { width = window.innerWidth; draw(); } });
