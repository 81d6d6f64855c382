"use strict";
// The review page: sorts and filters tables, and shows the layers of one sample. It writes text only, never HTML.

const byId = (id) => document.getElementById(id);
const collator = new Intl.Collator(undefined, { numeric: true });

// ---- Tables ----

// A number, a text, or null where the cell is empty.
function contentOf(row, index) {
  const cell = row.cells[index];
  if (!cell) return further[placeOf(row)][index - row.cells.length];
  if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
  return cell.textContent.trim() || null;
}

function compare(a, b) {
  return typeof a === "number" && typeof b === "number" ? a - b : collator.compare(a, b);
}

// Empty cells come last in both directions: they are neither the best nor the worst.
function sortRows(table, header) {
  const sign = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  const keyed = Array.from(table.tBodies[0].rows, (row) => [contentOf(row, header.cellIndex), row]);
  keyed.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : sign * compare(a, b)));
  for (const other of table.tHead.rows[0].cells) {
    if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
  }
  header.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
  table.tBodies[0].append(...keyed.map(([, row]) => row));
}

for (const table of document.querySelectorAll(".sheet table")) {
  table.tHead.addEventListener("click", (event) => {
    if (event.target.closest(".sort")) sortRows(table, event.target.closest("th"));
  });
}

const box = document.querySelector("#samples .box");
const table = box.querySelector("table");
const headers = Array.from(table.tHead.rows[0].cells);
const worstFirst = Array.from(table.tBodies[0].rows);

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

function applyFilters() {
  const tests = [];
  for (const header of headers) {
    const input = header.querySelector("input");
    const text = input && header.offsetWidth ? input.value.trim() : ""; // a hidden column filters nothing
    const test = text && parseFilter(text, header.classList.contains("number"));
    if (input) input.setAttribute("aria-invalid", test === null);
    if (test) tests.push([header.cellIndex, test]);
  }
  let shown = 0;
  for (const row of worstFirst) {
    row.hidden = !tests.every(([index, test]) => {
      const content = contentOf(row, index);
      return content !== null && test(content);
    });
    shown += !row.hidden;
  }
  document.querySelector(".counter").value = `${shown} of ${worstFirst.length}`;
  showPosition();
}

function resetTable() {
  for (const header of headers) {
    const input = header.querySelector("input");
    if (input) input.value = "";
    if (header.hasAttribute("aria-sort")) header.setAttribute("aria-sort", "none");
  }
  table.tBodies[0].append(...worstFirst);
  box.scrollTop = 0;
  applyFilters();
  watchRows();
}

table.tHead.addEventListener("input", applyFilters);
table.tHead.addEventListener("click", (event) => {
  if (!event.target.closest(".sort")) return;
  showPosition();
  watchRows();
});
byId("reset").addEventListener("click", resetTable);
for (const button of document.querySelectorAll("[data-state]")) {
  button.addEventListener("click", () => {
    byId("state-filter").value = button.dataset.state;
    applyFilters();
  });
}

// ---- Visible rows ----

const pictures = JSON.parse(byId("pictures").textContent);
const further = JSON.parse(byId("further").textContent); // values of the columns that are not shown at first
const furtherHeaders = headers.filter((header) => header.matches(".more"));
const allColumns = document.querySelector("#samples .all-columns");
const placeOf = (row) => Number(row.id.slice(1));
const picturesOf = (row) => pictures[placeOf(row)];
const url = (name, base64) => `data:image/${name === "image" ? "webp" : "png"};base64,${base64}`;

function furtherCells(row) {
  return further[placeOf(row)].map((value, index) => {
    const cell = document.createElement("td");
    const isNumber = typeof value === "number";
    if (isNumber) cell.dataset.value = value;
    cell.textContent = isNumber ? value.toFixed(furtherHeaders[index].dataset.digits) : value;
    cell.classList.add("more");
    cell.classList.toggle("long", cell.textContent.length > 40);
    return cell;
  });
}

// Hundreds of pictures and columns would be slow: only visible rows have theirs.
const visible = new IntersectionObserver((changes) => {
  for (const { isIntersecting, target: row } of changes) {
    if (!isIntersecting) continue;
    const thumbnail = row.querySelector(".thumbnail:not([src])");
    if (thumbnail) thumbnail.src = url("image", picturesOf(row).image);
    if (allColumns && allColumns.checked && !row.querySelector(".more")) row.append(...furtherCells(row));
  }
}, { root: box, rootMargin: "300px" });

function watchRows() {
  visible.disconnect(); // it reports changes only, so start again
  for (const row of worstFirst) {
    for (const cell of row.querySelectorAll(".more")) cell.remove();
    visible.observe(row);
  }
}

if (allColumns) {
  allColumns.addEventListener("change", watchRows);
  allColumns.addEventListener("change", applyFilters);
}

// ---- Viewer ----

const LAYERS = ["predicted", "truth", "error"];
const stage = byId("stage");
const stack = byId("stack");
let current = null; // the row in the viewer
let zoom = 1; // 1: the whole picture

const visibleRows = () => Array.from(table.tBodies[0].rows).filter((row) => !row.hidden);

function showPosition() {
  const rows = visibleRows();
  const place = rows.indexOf(current);
  byId("position").value = place < 0 ? "" : `${place + 1} of ${rows.length}`;
}

function showLayers() {
  for (const name of LAYERS) byId(name).hidden = !byId(`show-${name}`).checked;
  byId("errors").hidden = !byId("show-error").checked;
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
  const found = current && picturesOf(current);
  if (!found) return;
  const [rows, columns] = found.shape;
  const fit = Math.min((stage.clientWidth - 2) / columns, (stage.clientHeight - 2) / rows);
  stack.style.width = `${fit * zoom * columns}px`;
  stack.style.height = `${fit * zoom * rows}px`;
  const after = stack.getBoundingClientRect();
  stage.scrollLeft += after.left + across * after.width - corner.left - x;
  stage.scrollTop += after.top + down * after.height - corner.top - y;
}

function describe(row) {
  const facts = [];
  for (const header of headers) {
    if (!header.matches(".text:not(.more, .name), .number:not(.more)")) continue;
    const text = row.cells[header.cellIndex].textContent.trim();
    if (!text) continue;
    const group = document.createElement("div");
    group.append(document.createElement("dt"), document.createElement("dd"));
    group.firstChild.textContent = header.querySelector("button").textContent;
    group.lastChild.textContent = text;
    facts.push(group);
  }
  byId("facts").replaceChildren(...facts);
  byId("viewer-title").textContent = row.querySelector("th").textContent;
  byId("links").replaceChildren(...Array.from(row.querySelector(".links").cloneNode(true).childNodes));
}

// Scrolls the box of the table, not the page.
function reveal(row) {
  const top = row.offsetTop - table.tHead.offsetHeight;
  const bottom = row.offsetTop + row.offsetHeight - box.clientHeight;
  if (top < box.scrollTop) box.scrollTop = top;
  else if (bottom > box.scrollTop) box.scrollTop = bottom;
}

function select(row) {
  if (current) current.removeAttribute("aria-current");
  current = row;
  row.setAttribute("aria-current", "true");
  const found = picturesOf(row);
  stack.hidden = !found;
  byId("no-picture").hidden = Boolean(found);
  for (const name of ["image", ...LAYERS]) {
    const content = found && found[name];
    if (content) byId(name).src = url(name, content);
    else byId(name).removeAttribute("src");
    byId(name).alt = content ? `${name} of ${row.querySelector("th").textContent}` : "";
    if (name !== "image") byId(`show-${name}`).disabled = !content;
  }
  describe(row);
  showPosition();
  setZoom(1);
}

function step(by) {
  const rows = visibleRows();
  const place = rows.indexOf(current) + by;
  const row = rows[Math.max(0, Math.min(place, rows.length - 1))];
  if (!row) return;
  const focused = table.tBodies[0].contains(document.activeElement);
  select(row);
  reveal(row);
  if (focused) row.querySelector("button").focus({ preventScroll: true });
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
  "+": () => setZoom(zoom * 1.5),
  "=": () => setZoom(zoom * 1.5), // the key of + without shift
  "-": () => setZoom(zoom / 1.5),
  0: () => setZoom(1),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input[type=search]")) return;
  const inTable = event.target.closest("#samples tbody");
  const arrow = inTable && { ArrowDown: () => step(1), ArrowUp: () => step(-1) }[event.key];
  const act = arrow || KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});
table.tBodies[0].addEventListener("click", (event) => {
  const row = event.target.closest("tr");
  if (!row || event.target.closest("a")) return;
  select(row);
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
window.addEventListener("resize", () => setZoom(zoom));
window.addEventListener("hashchange", () => {
  const row = worstFirst.find((candidate) => `#${candidate.id}` === location.hash);
  if (row) select(row);
});

showLayers();
applyFilters();
watchRows();
const first = worstFirst.find((row) => picturesOf(row)) || worstFirst[0];
if (first) select(first);
