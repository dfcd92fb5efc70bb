"use strict";
const numbers = JSON.parse(document.getElementById("numbers").textContent);
const { base, rows } = JSON.parse(document.getElementById("data").textContent);
const [TRACK, ACTION, GENRE, SCORE, EXISTING, SCORES, LENGTH, NOTE, FAILURE, APART] =
  Array(10).keys();
const REST = "other genres";
const PRINTED = 500;

// Dark and light: DataTables goes by a class, everything else by the variables that hang on it.
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const dress = () => document.documentElement.classList.toggle("dark", prefersDark.matches);
prefersDark.addEventListener("change", dress);
dress();

const put = (id, chart) => document.getElementById(id)?.append(chart);

function drawGenres() {
  const shown = numbers.genres.slice(0, numbers.most_bars);
  const rest = numbers.genres.slice(numbers.most_bars);
  const total = (key) => rest.reduce((sum, each) => sum + each[key], 0);
  if (rest.length) shown.push({ genre: REST, ours: total("ours"), kept: total("kept") });
  const bars = shown.flatMap(({ genre, ours, kept }) => [
    { genre, whose: "from tagger", tracks: ours },
    { genre, whose: "kept", tracks: kept },
  ]);
  const longest = Math.max(...shown.map((each) => each.genre.length));
  put("genre-chart", Plot.plot({
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
  put("score-chart", Plot.plot({
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

// Names come from files that anybody may have made: all of them are shown as text.
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

// One filter comes from the numbers above the table, the others from the controls in its head.
const told = document.getElementById("filtered");
const line = document.createElement("tr");
let linked = "";
function link(words, fits) {
  linked = words;
  table.search.fixed("linked", fits && ((_, row) => fits(row)));
}
function choose(index, fits) {
  table.column(index).search.fixed("chosen", fits && ((_, row) => fits(row[index] ?? "")));
}
function redraw() {
  table.draw();
  told.textContent = linked && `${table.page.info().recordsDisplay.toLocaleString("en")}: ${linked}`;
  document.getElementById("clear").hidden = !linked;
}
function show(words, fits) {
  for (const control of line.querySelectorAll("input, select")) control.value = "";
  for (const index of [TRACK, ACTION, GENRE, EXISTING, NOTE]) choose(index, null);
  table.search("");
  link(words, fits);
  redraw();
  document.getElementById("tracks").scrollIntoView();
}

// What is chosen from a list has to be one of the names in a cell, what is typed a part of it.
const named = (cell, name) => cell.split(";").includes(name);
function makeSelect(index) {
  const values = new Set(rows.flatMap((row) => row[index].split(";")).filter(Boolean));
  const select = document.createElement("select");
  select.append(new Option("all", ""), ...[...values].sort().map((v) => new Option(v, v)));
  select.addEventListener("change", () => {
    const { value } = select;
    choose(index, value && ((cell) => named(cell, value)));
    redraw();
  });
  return select;
}
function makeInput(index) {
  const input = document.createElement("input");
  input.type = "search";
  let waiting;
  input.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      const wanted = input.value.toLowerCase();
      choose(index, wanted && ((cell) => cell.toLowerCase().includes(wanted)));
      redraw();
    }, 150);
  });
  return input;
}
const makers = { [TRACK]: makeInput, [ACTION]: makeSelect, [GENRE]: makeSelect,
                 [EXISTING]: makeSelect, [NOTE]: makeInput };
line.className = "filters";
for (const index of table.columns(":visible").indexes().toArray()) {
  const cell = line.insertCell();
  const control = makers[index]?.(index);
  control?.setAttribute("aria-label", `Filter by ${table.column(index).title()}`);
  if (control) cell.append(control);
}
table.table().header().append(line);
const follow = () => [...line.cells].forEach((cell, i) => {
  cell.style.display = table.column(i).responsiveHidden() ? "" : "none";
});
table.on("responsive-resize", follow);
follow();

const headings = (selector) =>
  new Set([...document.querySelectorAll(selector)].map((each) => each.textContent));
const lines = headings(".matrix tbody th"), columns = headings(".matrix thead span");
const isAt = (name, heading, known) => (heading === REST ? !known.has(name) : name === heading);
const ways = {
  action: ({ action }) => [action, (row) => row[ACTION] === action],
  failure: ({ failure }) => [failure, (row) => row[FAILURE] === failure],
  track: ({ track }) => [short(track), (row) => row[TRACK] === track],
  genre: ({ genre }) => [genre, (row) => named(row[GENRE], genre) || named(row[EXISTING], genre)],
  existing: ({ existing, heard }) => [
    `had ${existing}, heard ${heard}`,
    ({ [APART]: apart }) =>
      apart && isAt(apart[0], existing, lines) && isAt(apart[1], heard, columns),
  ],
};
document.addEventListener("click", ({ target }) => {
  const data = target.closest("main button")?.dataset ?? {};
  const way = Object.keys(ways).find((key) => key in data);
  if (way) show(...ways[way](data));
});
document.getElementById("clear").addEventListener("click", () => show("", null));

// On paper: dark ink, and more than one page of the table.
let length;
addEventListener("beforeprint", () => {
  document.documentElement.classList.remove("dark");
  length = table.page.len();
  table.page.len(PRINTED).draw();
});
addEventListener("afterprint", () => { dress(); table.page.len(length).draw(); });
