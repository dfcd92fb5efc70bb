"use strict";
const numbers = JSON.parse(document.getElementById("numbers").textContent);
const { base, rows } = JSON.parse(document.getElementById("data").textContent);
const [TRACK, ACTION, GENRE, SCORE, EXISTING, SCORES, LENGTH, NOTE, FAILURE,
  DISAGREEMENT] = Array(10).keys();
const OTHER_GENRES = "other genres";
const PRINTED_ROWS = 500;

// Dark or light: DataTables reads a class; all other styles use variables that the class sets.
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const applyScheme = () => document.documentElement.classList.toggle("dark", prefersDark.matches);
prefersDark.addEventListener("change", applyScheme);
applyScheme();

const append = (id, chart) => document.getElementById(id)?.append(chart);

function drawGenres() {
  const shown = numbers.genres.slice(0, numbers.most_bars);
  const rest = numbers.genres.slice(numbers.most_bars);
  const total = (key) => rest.reduce((sum, each) => sum + each[key], 0);
  if (rest.length) shown.push({ genre: OTHER_GENRES, ours: total("ours"), kept: total("kept") });
  const bars = shown.flatMap(({ genre, ours, kept }) => [
    { genre, whose: "from tagger", tracks: ours },
    { genre, whose: "kept", tracks: kept },
  ]);
  const longest = Math.max(...shown.map((each) => each.genre.length));
  append("genre-chart", Plot.plot({
    marginLeft: Math.min(40 + 6 * longest, 160), height: 60 + 22 * shown.length, width: 560,
    x: { label: "tracks", grid: true, nice: true },
    y: { label: null, domain: shown.map((each) => each.genre),
         tickFormat: (genre) => (genre.length > 20 ? genre.slice(0, 19) + "…" : genre) },
    color: { domain: ["from tagger", "kept"], range: ["var(--ours)", "var(--kept)"], legend: true },
    marks: [Plot.barX(bars, { x: "tracks", y: "genre", fill: "whose", tip: true }), Plot.ruleX([0])],
  }));
}

function drawScores() {
  const step = 1 / numbers.written_scores.length;
  const bars = ["written_scores", "low_scores"].flatMap((key) =>
    numbers[key].map((tracks, i) => ({
      from: i * step, to: (i + 1) * step, tracks,
      which: key === "low_scores" ? "too low to write" : "high enough",
    })));
  append("score-chart", Plot.plot({
    width: 560, height: 320,
    x: { label: "score of the best genre", domain: [0, 1] },
    y: { label: "tracks", grid: true, nice: true },
    color: { domain: ["high enough", "too low to write"], range: ["var(--ours)", "var(--low)"],
             legend: true },
    marks: [Plot.rectY(bars, { x1: "from", x2: "to", y: "tracks", fill: "which", tip: true }),
            Plot.ruleY([0])],
  }));
}

if (numbers.genres.length) drawGenres();
drawScores();

// Anybody may have made the files, so every name from them is shown as text, never as HTML.
const text = DataTable.render.text();
const short = (path) => (path.startsWith(base) ? path.slice(base.length) : path);
const minutes = (s) => `${Math.floor(s / 60)}:${String(Math.floor(s % 60)).padStart(2, "0")}`;
const shownAs = (convert) => ({
  display: (value) => (value === null ? "" : text.display(convert(value))),
  filter: (value) => (value === null ? "" : text.filter(convert(value))),
});
const column = (title, priority, rest = {}) => ({
  title, responsivePriority: priority, render: text, ...rest,
});
const table = new DataTable("#rows", {
  data: rows,
  deferRender: true,
  order: [],
  pageLength: 25,
  lengthMenu: [25, 100, 500],
  responsive: { details: { type: "inline" } },
  autoWidth: false,
  columns: [
    column("Track", 1, { render: shownAs(short) }),
    column("Action", 2),
    column("Genre", 1),
    column("Score", 3, { className: "number", type: "num", render: shownAs((s) => s.toFixed(2)) }),
    column("Had", 4),
    column("All scores", 7, { className: "scores", orderable: false }),
    column("Length", 6, { className: "number", type: "num", render: shownAs(minutes) }),
    column("Note", 5),
  ],
  language: { emptyTable: "No track was found.", search: "Search:", lengthMenu: "_MENU_ a page" },
});

// One filter comes from the buttons above the table, the others from the inputs in its head.
const filterStatus = document.getElementById("filtered");
const filterRow = document.createElement("tr");
let buttonFilter = "";
function setButtonFilter(label, matches) {
  buttonFilter = label;
  table.search.fixed("button", matches && ((_, row) => matches(row)));
}
function setColumnFilter(index, matches) {
  table.column(index).search.fixed("input", matches && ((_, row) => matches(row[index] ?? "")));
}
function redraw() {
  table.draw();
  filterStatus.textContent =
    buttonFilter && `${table.page.info().recordsDisplay.toLocaleString("en")}: ${buttonFilter}`;
  document.getElementById("clear").hidden = !buttonFilter;
}
function showRows(label, matches) {
  for (const control of filterRow.querySelectorAll("input, select")) control.value = "";
  for (const index of [TRACK, ACTION, GENRE, EXISTING, NOTE]) setColumnFilter(index, null);
  table.search("");
  setButtonFilter(label, matches);
  redraw();
  document.getElementById("tracks").scrollIntoView();
}

// A name from a list has to equal a name in the cell; typed text has to be a part of the cell.
const hasName = (cell, name) => cell.split(";").includes(name);
function makeSelect(index) {
  const values = new Set(rows.flatMap((row) => row[index].split(";")).filter(Boolean));
  const select = document.createElement("select");
  select.append(new Option("all", ""), ...[...values].sort().map((v) => new Option(v, v)));
  select.addEventListener("change", () => {
    const { value } = select;
    setColumnFilter(index, value && ((cell) => hasName(cell, value)));
    redraw();
  });
  return select;
}
function makeInput(index) {
  const input = document.createElement("input");
  input.type = "search";
  let timer;
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      const wanted = input.value.toLowerCase();
      setColumnFilter(index, wanted && ((cell) => cell.toLowerCase().includes(wanted)));
      redraw();
    }, 150);
  });
  return input;
}
const makers = { [TRACK]: makeInput, [ACTION]: makeSelect, [GENRE]: makeSelect,
                 [EXISTING]: makeSelect, [NOTE]: makeInput };
filterRow.className = "filters";
for (const index of table.columns(":visible").indexes().toArray()) {
  const cell = filterRow.insertCell();
  const control = makers[index]?.(index);
  control?.setAttribute("aria-label", `Filter by ${table.column(index).title()}`);
  if (control) cell.append(control);
}
table.table().header().append(filterRow);
const hideFilters = () => [...filterRow.cells].forEach((cell, i) => {
  cell.style.display = table.column(i).responsiveHidden() ? "" : "none";
});
table.on("responsive-resize", hideFilters);
hideFilters();

const headings = (selector) =>
  new Set([...document.querySelectorAll(selector)].map((each) => each.textContent));
const matrixRows = headings(".matrix tbody th"), matrixColumns = headings(".matrix thead span");
const isAt = (name, heading, known) => (heading === OTHER_GENRES ? !known.has(name) : name === heading);
const buttonFilters = {
  action: ({ action }) => [action, (row) => row[ACTION] === action],
  failure: ({ failure }) => [failure, (row) => row[FAILURE] === failure],
  track: ({ track }) => [short(track), (row) => row[TRACK] === track],
  genre: ({ genre }) => [genre, (row) => hasName(row[GENRE], genre) || hasName(row[EXISTING], genre)],
  existing: ({ existing, heard }) => [
    `had ${existing}, heard ${heard}`,
    ({ [DISAGREEMENT]: pair }) =>
      pair && isAt(pair[0], existing, matrixRows) && isAt(pair[1], heard, matrixColumns),
  ],
};
document.addEventListener("click", ({ target }) => {
  const data = target.closest("main button")?.dataset ?? {};
  const filter = Object.keys(buttonFilters).find((key) => key in data);
  if (filter) showRows(...buttonFilters[filter](data));
});
document.getElementById("clear").addEventListener("click", () => showRows("", null));

// On paper: dark text, and more rows than one page of the table.
let pageLength;
addEventListener("beforeprint", () => {
  document.documentElement.classList.remove("dark");
  pageLength = table.page.len();
  table.page.len(PRINTED_ROWS).draw();
});
addEventListener("afterprint", () => { applyScheme(); table.page.len(pageLength).draw(); });
