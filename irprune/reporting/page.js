"use strict";
(() => {
  const tools = document.getElementById("tools");
  if (!tools) return;
  const body = document.querySelector("#groups tbody");
  const rows = [...body.rows].map((row) => ({ row, text: row.textContent.toLowerCase() }));
  const find = document.getElementById("find");
  const order = document.getElementById("order");
  const changed = document.getElementById("changed");
  const count = document.getElementById("count");

  const show = () => {
    const wanted = find.value.trim().toLowerCase();
    let shown = 0;
    for (const { row, text } of rows) {
      row.hidden = !text.includes(wanted) || (changed.checked && row.classList.contains("same"));
      shown += row.hidden ? 0 : 1;
    }
    count.textContent = shown === rows.length ? "" : `${shown} of ${rows.length}`;
  };

  const sort = () => {
    const key = order.value;
    const sign = key === "before" ? -1 : 1;
    rows.sort((a, b) =>
      sign * (a.row.dataset[key] - b.row.dataset[key]) || a.row.dataset.index - b.row.dataset.index);
    body.append(...rows.map(({ row }) => row));
  };

  // A link to a group must find its row, whatever is filtered.
  const reveal = () => {
    const row = document.getElementById(location.hash.slice(1));
    if (!row || row.parentElement !== body) return;
    if (row.hidden) { find.value = ""; changed.checked = false; show(); }
    row.querySelector("details").open = true;
    row.scrollIntoView({ block: "center" });
  };

  tools.hidden = false;
  tools.addEventListener("submit", (event) => event.preventDefault());
  find.addEventListener("input", show);
  changed.addEventListener("change", show);
  order.addEventListener("change", sort);
  window.addEventListener("hashchange", reveal);
  // A reload may bring back what stood in the fields.
  sort();
  show();
  reveal();
})();
