"use strict";
// Histograms of the objects of the sample in the viewer. Selected bars light up their objects: the picture of marks has
// a dot for each object, as grey as the number of its bar, and the filter #lit shows the greys of the selected ones.
// So the pixels of the picture need not be read, which browsers refuse for files.

const bars = document.querySelector("#bars");
const measurement = document.querySelector("#measurement");
const marks = document.querySelector("#marks");

const barsOf = () => Array.from(bars.children);
const isSelected = (bar) => bar.getAttribute("aria-pressed") === "true";

// What a bar counts; the first and the last one also count what is beyond them.
function rangeOf(number, low, high, count) {
  const [from, to] = [number, number + 1].map((edge) => (low + (edge / count) * (high - low)).toPrecision(3)).map(Number);
  if (low === high) return `${from}`;
  if (number === 0) return `up to ${to}`;
  return number === count - 1 ? `from ${from}` : `${from} to ${to}`;
}

// Draws the histogram of the chosen measurement, no bar selected.
function drawHistogram() {
  const found = data.pictures[current];
  const chosen = found?.histograms?.[measurement.selectedIndex];
  document.querySelector("#histogram").hidden = !chosen;
  if (!chosen) {
    bars.replaceChildren();
    light();
    return;
  }
  const [, low, high, counts] = chosen;
  const highest = Math.max(1, ...counts);
  bars.replaceChildren(...counts.map((count, number) => {
    const label = `${rangeOf(number, low, high, counts.length)}: ${count} object${count === 1 ? "" : "s"}`;
    const bar = element("button", { type: "button", title: label, ariaLabel: label, tabIndex: number ? -1 : 0 });
    bar.setAttribute("aria-pressed", "false");
    bar.style.setProperty("--height", `${(100 * count) / highest}%`);
    bar.dataset.count = count;
    return bar;
  }));
  document.querySelector("#low").textContent = low;
  document.querySelector("#high").textContent = high;
  light();
}

// Lights up the objects of the selected bars in the picture, and says how many they are.
function light() {
  const found = data.pictures[current];
  const all = barsOf();
  const selected = all.filter(isSelected);
  const sum = (some) => some.reduce((total, bar) => total + Number(bar.dataset.count), 0);
  const shown = found && found.marked < sum(all) ? `; the picture has marks for ${found.marked} of all` : "";
  document.querySelector("#selected").value = selected.length
    ? `${sum(selected)} of ${sum(all)} objects${shown}`
    : "select bars to mark their objects";
  document.querySelector("#select-none").disabled = !selected.length;
  document.querySelector("#lit-bars").setAttribute("tableValues", ["0", ...all.map((bar) => (isSelected(bar) ? 1 : 0))].join(" "));
  marks.hidden = !selected.length;
  if (!selected.length) return;
  marks.src = found.marks;
  marks.alt = `marks of selected objects of ${nameOf(current)}`;
  // One picture for each measurement, one below the other.
  marks.style.objectPosition = `0 ${(100 * measurement.selectedIndex) / Math.max(1, found.histograms.length - 1)}%`;
}

// Shows the measurements of the sample in the viewer; the same one as before if it has it.
function showHistograms() {
  const before = measurement.value;
  const names = (data.pictures[current]?.histograms || []).map(([number]) => data.measurements[number]);
  measurement.replaceChildren(...names.map((name) => element("option", { textContent: name })));
  if (names.includes(before)) measurement.value = before;
  drawHistogram();
}

function selectNoBar() {
  for (const bar of barsOf()) bar.setAttribute("aria-pressed", "false");
  light();
}

bars.addEventListener("click", (event) => {
  const bar = event.target.closest("button");
  if (!bar) return;
  bar.setAttribute("aria-pressed", String(!isSelected(bar)));
  light();
});
bars.addEventListener("keydown", (event) => {
  const all = barsOf();
  const at = all.indexOf(event.target);
  if (event.key === "Escape") selectNoBar();
  const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: all.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  const next = all[Math.max(0, Math.min(to, all.length - 1))];
  for (const bar of all) bar.tabIndex = bar === next ? 0 : -1;
  next.focus();
});
measurement.addEventListener("change", drawHistogram);
document.querySelector("#select-none").addEventListener("click", selectNoBar);
