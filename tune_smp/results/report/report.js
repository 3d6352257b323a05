
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const key = (row, column) => row.cells[column].dataset.sort;
  const sort = (column) => {
    const head = heads[column];
    const falling = head.ariaSort ? head.ariaSort === "ascending" : "first" in head.dataset;
    const sign = falling ? -1 : 1;
    const numeric = head.classList.contains("number");
    const rows = [...table.tBodies[0].rows].sort((one, other) => {
      const [a, b] = [key(one, column), key(other, column)];
      if (a === "" || b === "") return (a === "") - (b === "");
      return sign * (numeric ? a - b : a.localeCompare(b));
    });
    for (const other of heads) other.removeAttribute("aria-sort");
    head.ariaSort = falling ? "descending" : "ascending";
    table.tBodies[0].append(...rows);
  };
  heads.forEach((head, column) => {
    head.tabIndex = 0;
    head.addEventListener("click", () => sort(column));
    head.addEventListener("keydown", (event) => {
      if (event.key === "Enter") sort(column);
    });
  });
}
