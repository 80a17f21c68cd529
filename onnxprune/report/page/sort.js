"use strict";
// Sorts a table by the column whose head is clicked; a second click turns the order round. Unknown values stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const numeric = head.classList.contains("number");
    const valueOf = (row) => row.cells[column].dataset.value;
    const compare = (one, other) =>
      numeric ? Number(one) - Number(other) : one.localeCompare(other, undefined, { numeric: true });
    head.querySelector("button").addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const descending = now ? now === "ascending" : numeric;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const rows = [...body.rows].sort((one, other) => {
        const [a, b] = [valueOf(one), valueOf(other)];
        if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
        return descending ? compare(b, a) : compare(a, b);
      });
      body.append(...rows);
    });
  });
}
