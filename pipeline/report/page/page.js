"use strict";
// The review page: sorts and filters tables, and shows the layers of one sample. It writes text only, never HTML.

const byId = (id) => document.getElementById(id);
const collator = new Intl.Collator(undefined, { numeric: true });

// Empty cells come last in both directions: they are neither the best nor the worst.
function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null);
  return sign * (typeof a === "number" && typeof b === "number" ? a - b : collator.compare(a, b));
}

// Marks a header as sorted, the other way round if it was; returns 1 for ascending, -1 for descending.
function turn(header) {
  const sign = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const other of header.parentNode.querySelectorAll("[aria-sort]")) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
  return sign;
}

// ---- Tables below the samples: all their rows are in the page ----

function contentOf(cell) {
  return cell.dataset.value !== undefined ? Number(cell.dataset.value) : cell.textContent.trim() || null;
}

for (const table of document.querySelectorAll(".sheet:not(#samples) table")) {
  table.tHead.addEventListener("click", (event) => {
    const header = event.target.closest(".sort") && event.target.closest("th");
    if (!header) return;
    const sign = turn(header);
    const keyed = Array.from(table.tBodies[0].rows, (row) => [contentOf(row.cells[header.cellIndex]), row]);
    keyed.sort(([a], [b]) => compare(a, b, sign));
    table.tBodies[0].replaceChildren(...keyed.map(([, row]) => row));
  });
}

// ---- Samples: a place in the data for each, the worst first; only the rows in sight are drawn ----

const data = JSON.parse(byId("data").textContent);
for (const found of data.pictures.filter(Boolean)) {
  for (const [name, ending] of Object.entries(data.endings[found.ending])) found[name] = found.start + ending;
}
const box = document.querySelector("#samples .box");
const table = box.querySelector("table");
const columns = Array.from(table.tHead.rows[0].cells).slice(1, -1); // without picture and files; cells of data are in this order
const places = Array.from(data.cells.keys());
const allColumns = document.querySelector("#samples .all-columns");
const AROUND = 6; // rows beyond those in sight

let order = places; // those that pass the filters, in the order of the table
let sorting = null; // column and direction; null is worst first
let rowPx = 64;
let current = null; // the place in the viewer
const drawn = new Map();
const nameIndex = columns.findIndex((header) => header.matches(".name"));
const nameOf = (place) => data.cells[place][nameIndex];

// The test of a filter for a cell that is not empty; null if the filter cannot be parsed.
function parseFilter(text, isNumber) {
  if (!isNumber) return (content) => String(content).toLowerCase().includes(text.toLowerCase());
  const number = "([-+]?\\d*\\.?\\d+(?:e[-+]?\\d+)?)";
  const range = text.match(new RegExp(`^${number}\\s*\\.\\.\\s*${number}$`, "i"));
  if (range) return (content) => Number(range[1]) <= content && content <= Number(range[2]);
  const bound = text.match(new RegExp(`^(<=|>=|<|>|=)?\\s*${number}$`, "i"));
  if (!bound) return null;
  const limit = Number(bound[2]);
  const decimals = (bound[2].split(".")[1] || "").length;
  return {
    "<": (content) => content < limit,
    "<=": (content) => content <= limit,
    ">": (content) => content > limit,
    ">=": (content) => content >= limit,
  }[bound[1]] || ((content) => Math.abs(content - limit) <= 0.5000001 * 10 ** -decimals); // to as many decimals as typed
}

const isShown = (header) => !header.matches(".more") || allColumns.checked;

// Filters, sorts and draws the table.
function arrange() {
  const tests = [];
  for (const [index, header] of columns.entries()) {
    const input = header.querySelector("input");
    const text = isShown(header) ? input.value.trim() : ""; // a hidden column filters nothing
    const test = text && parseFilter(text, header.matches(".number"));
    input.setAttribute("aria-invalid", test === null);
    if (test) tests.push([index, test]);
  }
  order = places.filter((place) => tests.every(([index, test]) => {
    const content = data.cells[place][index];
    return content !== null && test(content);
  }));
  if (sorting) order.sort((a, b) => compare(data.cells[a][sorting.index], data.cells[b][sorting.index], sorting.sign));
  document.querySelector(".counter").value = `${order.length} of ${places.length}`;
  showPosition();
  draw();
}

function textOf(place, index) {
  const content = data.cells[place][index];
  if (index === 0) return `${data.signs[content]} ${content}`;
  const { digits } = columns[index].dataset;
  return typeof content === "number" && digits ? content.toFixed(digits) : String(content ?? "");
}

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function linksOf(place) {
  return Object.entries(data.links[place]).flatMap(([label, href]) => [element("a", { href, textContent: label }), " "]);
}

function rowOf(place) {
  const picture = data.pictures[place] && element("img", { className: "thumbnail", alt: "", src: data.pictures[place].image });
  const row = element("tr", { className: data.cells[place][0] }, element("td", {}, picture || ""));
  row.dataset.place = place;
  for (const [index, header] of columns.entries()) {
    if (!isShown(header)) continue;
    const text = textOf(place, index);
    const cell = index === nameIndex
      ? element("th", { scope: "row" }, element("button", { type: "button", className: "open", textContent: text, title: text }))
      : element("td", { className: header.matches(".number") ? "number" : "" }, element("div", { textContent: text, title: text }));
    cell.classList.toggle("state", index === 0);
    row.append(cell);
  }
  row.append(element("td", { className: "links" }, element("div", {}, ...linksOf(place))));
  if (place === current) row.setAttribute("aria-current", "true");
  return row;
}

const spacers = [0, 1].map(() => element("tr", { className: "spacer", ariaHidden: "true" }, element("td", { colSpan: 2 })));
table.tBodies[0].append(...spacers);

// Draws the rows in sight. A row that stays keeps its element, and so the focus.
function draw() {
  const first = Math.max(0, Math.floor(box.scrollTop / rowPx) - AROUND);
  const last = Math.min(order.length, Math.ceil((box.scrollTop + box.clientHeight) / rowPx) + AROUND);
  const wanted = order.slice(first, last);
  const kept = new Set(wanted);
  for (const [place, row] of drawn) {
    if (kept.has(place)) continue;
    row.remove();
    drawn.delete(place);
  }
  let next = spacers[0].nextSibling;
  for (const [offset, place] of wanted.entries()) {
    if (!drawn.has(place)) drawn.set(place, rowOf(place));
    const row = drawn.get(place);
    row.setAttribute("aria-rowindex", first + offset + 2);
    if (row === next) next = next.nextSibling;
    else table.tBodies[0].insertBefore(row, next);
  }
  spacers[0].style.height = `${first * rowPx}px`;
  spacers[1].style.height = `${(order.length - last) * rowPx}px`;
}

function redraw() {
  for (const row of drawn.values()) row.remove();
  drawn.clear();
  arrange();
}

function reset() {
  for (const header of columns) {
    header.querySelector("input").value = "";
    header.setAttribute("aria-sort", "none");
  }
  sorting = null;
  box.scrollTop = 0;
  arrange();
}

table.tHead.addEventListener("input", arrange);
table.tHead.addEventListener("click", (event) => {
  const header = event.target.closest(".sort") && event.target.closest("th");
  if (!header) return;
  sorting = { index: columns.indexOf(header), sign: turn(header) };
  arrange();
});
box.addEventListener("scroll", draw);
byId("reset").addEventListener("click", reset);
if (allColumns) allColumns.addEventListener("change", redraw);
for (const button of document.querySelectorAll("[data-state]")) {
  button.addEventListener("click", () => {
    byId("state-filter").value = button.dataset.state;
    arrange();
  });
}

// ---- Viewer ----

const LAYERS = ["predicted", "truth", "error"];
const stage = byId("stage");
const stack = byId("stack");
let zoom = 1; // 1: the whole picture

function showPosition() {
  const index = order.indexOf(current);
  byId("position").value = index < 0 ? "" : `${index + 1} of ${order.length}`;
}

// Areas or outlines of prediction and truth; errors are areas always.
function showLayers() {
  const outlines = byId("as-outlines").checked;
  const found = data.pictures[current] || {};
  for (const name of LAYERS) {
    const content = (outlines && found[`${name}_outlines`]) || found[name];
    if (content) byId(name).src = content;
    else byId(name).removeAttribute("src");
    byId(name).hidden = !byId(`show-${name}`).checked;
    byId(name).classList.toggle("lines", outlines && name !== "error");
  }
  byId("outlines").hidden = !outlines;
  document.querySelector('#outlines [data-of="reference"]').hidden = !found.truth;
  byId("classes").hidden = outlines;
  byId("errors").hidden = !byId("show-error").checked || !found.error;
  stack.style.setProperty("--opacity", byId("fade").value / 100);
}

// Scales the picture and keeps the given point of the stage (default: its middle) where it is.
function setZoom(wanted, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
  const before = stack.getBoundingClientRect();
  const corner = stage.getBoundingClientRect();
  const across = (x + corner.left - before.left) / (before.width || 1);
  const down = (y + corner.top - before.top) / (before.height || 1);
  zoom = Math.min(32, Math.max(1, wanted));
  byId("zoom").value = `${Math.round(100 * zoom)} %`;
  const found = data.pictures[current];
  if (!found) return;
  const [rows, columns] = found.shape;
  const fit = Math.min((stage.clientWidth - 2) / columns, (stage.clientHeight - 2) / rows);
  stack.style.width = `${fit * zoom * columns}px`;
  stack.style.height = `${fit * zoom * rows}px`;
  const after = stack.getBoundingClientRect();
  stage.scrollLeft += after.left + across * after.width - corner.left - x;
  stage.scrollTop += after.top + down * after.height - corner.top - y;
}

function describe(place) {
  const facts = [];
  for (const [index, header] of columns.entries()) {
    const text = header.matches(".more, .name") ? "" : textOf(place, index);
    if (!text) continue;
    const name = header.querySelector("button").textContent;
    facts.push(element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: text })));
  }
  const plane = data.pictures[place]?.plane;
  if (plane) facts.push(element("div", {}, element("dt", { textContent: "picture of" }), element("dd", { textContent: plane })));
  byId("facts").replaceChildren(...facts);
  byId("viewer-title").textContent = nameOf(place);
  byId("links").replaceChildren(...linksOf(place));
}

// Scrolls the box of the table, not the page.
function reveal(place) {
  const head = table.tHead.offsetHeight;
  const top = order.indexOf(place) * rowPx;
  if (top < 0) return; // it is filtered out
  if (top < box.scrollTop) box.scrollTop = top;
  else if (top + rowPx + head > box.scrollTop + box.clientHeight) box.scrollTop = top + rowPx + head - box.clientHeight;
  draw();
}

function select(place) {
  drawn.get(current)?.removeAttribute("aria-current");
  current = place;
  drawn.get(place)?.setAttribute("aria-current", "true");
  const found = data.pictures[place];
  stack.hidden = !found;
  byId("no-picture").hidden = Boolean(found);
  if (found) byId("image").src = found.image;
  else byId("image").removeAttribute("src");
  for (const name of ["image", ...LAYERS]) {
    const content = found && found[name];
    byId(name).alt = content ? `${name} of ${nameOf(place)}` : "";
    if (name !== "image") byId(`show-${name}`).disabled = !content;
  }
  showLayers();
  showHistograms();
  describe(place);
  showPosition();
  setZoom(1);
}

function step(by) {
  const index = Math.max(0, Math.min(order.indexOf(current) + by, order.length - 1));
  if (!order.length) return;
  const focused = table.tBodies[0].contains(document.activeElement);
  select(order[index]);
  reveal(current);
  if (focused) drawn.get(current).querySelector("button").focus({ preventScroll: true });
}

function toggle(name) {
  if (!byId(`show-${name}`).disabled) byId(`show-${name}`).click();
}

const KEYS = {
  j: () => step(1),
  k: () => step(-1),
  p: () => toggle("predicted"),
  t: () => toggle("truth"),
  e: () => toggle("error"),
  o: () => byId("as-outlines").click(),
  "+": () => setZoom(zoom * 1.5),
  "=": () => setZoom(zoom * 1.5), // the key of + without shift
  "-": () => setZoom(zoom / 1.5),
  0: () => setZoom(1),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input[type=search], select")) return;
  const inTable = event.target.closest("#samples tbody");
  const arrow = inTable && { ArrowDown: () => step(1), ArrowUp: () => step(-1) }[event.key];
  const act = arrow || KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});
table.tBodies[0].addEventListener("click", (event) => {
  const row = event.target.closest("tr[data-place]");
  if (!row || event.target.closest("a")) return;
  select(Number(row.dataset.place));
  const top = byId("viewer").getBoundingClientRect().top;
  if (top < 0 || top > 0.7 * window.innerHeight) byId("viewer").scrollIntoView(); // in a narrow window the viewer is below the table
});
byId("previous").addEventListener("click", () => step(-1));
byId("next").addEventListener("click", () => step(1));
byId("larger").addEventListener("click", () => setZoom(zoom * 1.5));
byId("smaller").addEventListener("click", () => setZoom(zoom / 1.5));
byId("whole").addEventListener("click", () => setZoom(1));
for (const control of document.querySelectorAll(".controls input")) control.addEventListener("input", showLayers);
stage.addEventListener("wheel", (event) => {
  if (!event.ctrlKey) return; // a plain wheel scrolls
  event.preventDefault();
  const corner = stage.getBoundingClientRect();
  setZoom(zoom * 1.2 ** -Math.sign(event.deltaY), event.clientX - corner.left, event.clientY - corner.top);
}, { passive: false });
stage.addEventListener("pointermove", (event) => {
  if (!event.buttons || event.pointerType !== "mouse") return; // fingers scroll by themselves
  stage.scrollBy(-event.movementX, -event.movementY);
});
window.addEventListener("resize", () => {
  setZoom(zoom);
  draw();
});
window.addEventListener("hashchange", () => {
  const place = Number(location.hash.match(/^#s(\d+)$/)?.[1] ?? -1);
  if (!data.cells[place]) return;
  select(place);
  reveal(place);
  byId("samples").scrollIntoView();
});

arrange();
if (drawn.size) rowPx = drawn.get(order[0]).offsetHeight;
draw();
if (places.length) select(Math.max(0, data.pictures.findIndex(Boolean)));
else showLayers();
