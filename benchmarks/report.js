"use strict";
// Sorting: a click on a column's head sorts by its data-value; cells without one go last either way.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const before = head.getAttribute("aria-sort");
    const first = head.dataset.first || "descending";
    const other = first === "descending" ? "ascending" : "descending";
    const order = before === first ? other : first;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const key = (row) => row.cells[column].dataset.value;
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
      const [p, q] = [Number(x), Number(y)];
      return sign * (Number.isNaN(p) || Number.isNaN(q) ? x.localeCompare(y) : p - q);
    });
    table.tBodies[0].append(...rows);
  }));
}
// Linear or logarithmic time axis: both places of every mark were computed when the page was written.
for (const plot of document.querySelectorAll("figure.plot")) {
  const buttons = [...plot.querySelectorAll(".switch button")];
  const show = (mode) => {
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.mode === mode)));
    for (const ticks of plot.querySelectorAll("g.ticks")) ticks.toggleAttribute("hidden", ticks.dataset.mode !== mode);
    for (const point of plot.querySelectorAll("g.point")) {
      const [x, y, labelX, labelY, anchor] = JSON.parse(point.dataset[mode]);
      point.setAttribute("transform", `translate(${x} ${y})`);
      const label = point.querySelector("text");
      label.setAttribute("x", labelX);
      label.setAttribute("y", labelY);
      label.setAttribute("text-anchor", anchor);
    }
  };
  buttons.forEach((button) => button.addEventListener("click", () => show(button.dataset.mode)));
}
// Hover labels.
const tip = document.getElementById("tip");
const hide = () => { tip.hidden = true; };
for (const point of document.querySelectorAll("g.point")) {
  const reveal = () => {
    tip.textContent = point.dataset.tip;
    tip.hidden = false;
    const mark = point.querySelector("circle").getBoundingClientRect();
    const left = mark.left + scrollX + mark.width / 2 - tip.offsetWidth / 2;
    tip.style.left = `${Math.max(8, Math.min(left, scrollX + document.documentElement.clientWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${mark.top + scrollY - tip.offsetHeight - 8}px`;
  };
  point.addEventListener("pointerenter", reveal);
  point.addEventListener("focus", reveal);
  point.addEventListener("pointerleave", hide);
  point.addEventListener("blur", hide);
}
