"use strict";
// Rows come as text of JSON in script files, because a page on a disk may fetch nothing. All that a
// model wrote is put in as text.
const STEP = 50;
const $ = (id) => document.getElementById(id);
const nonce = document.currentScript.nonce;
const { chunks, total } = $("browser").dataset;
const rows = [];
const marked = new Map();
let found = [];
let limit = STEP;
let saved = true;

globalThis.addRows = (text) => {
  for (const row of JSON.parse(text)) rows.push(row);
};

function load(number) {
  $("loading").textContent = `Reading the rows … ${rows.length} of ${total}`;
  if (number === Number(chunks)) return begin();
  const script = document.createElement("script");
  script.nonce = nonce;
  script.src = `rows/${String(number).padStart(4, "0")}.js`;
  script.addEventListener("load", () => {
    script.remove();
    load(number + 1);
  });
  script.addEventListener("error", () => {
    $("loading").textContent =
      `${script.getAttribute("src")} cannot be read: keep the folder 'rows' beside this page, or write both again with 'selfinstruct report'.`;
  });
  document.head.append(script);
}

function choices(id, field) {
  const counts = new Map();
  for (const row of rows) counts.set(row[field], (counts.get(row[field]) || 0) + 1);
  const names = [...counts].sort((a, b) =>
    field === "round" ? a[0] - b[0] : b[1] - a[1] || (a[0] < b[0] ? -1 : 1),
  );
  for (const [name, count] of names) {
    $(id).append(new Option(`${String(name).replaceAll("_", " ")} (${count})`, name));
  }
}

const escaped = (word) => word.replace(/[.*+?^${}()|[\]\\\/-]/g, "\\$&");

function filter() {
  // A pattern for each word costs no second copy of all texts in small letters.
  const words = $("needle").value.split(/\s+/).filter(Boolean);
  const patterns = words.map((word) => new RegExp(escaped(word), "i"));
  const [reason, stage, round] = ["reason", "stage", "round"].map((id) => $(id).value);
  const low = $("low").valueAsNumber;
  const high = $("high").valueAsNumber;
  const bounded = !Number.isNaN(low) || !Number.isNaN(high);
  found = rows.filter(
    (row) =>
      (!reason || row.reason === reason) &&
      (!stage || row.stage === stage) &&
      (!round || String(row.round) === round) &&
      (!bounded || (row.score !== null && !(row.score < low) && !(row.score > high))) &&
      (!$("marked").checked || marked.has(row.id)) &&
      patterns.every(
        (pattern) =>
          pattern.test(row.instruction) ||
          pattern.test(row.input) ||
          pattern.test(row.output) ||
          pattern.test(row.why) ||
          pattern.test(row.id) ||
          pattern.test(row.nearest) ||
          pattern.test(row.provenance),
      ),
  );
  limit = STEP;
  $("rows").replaceChildren();
  show();
}

function show() {
  const from = $("rows").childElementCount;
  $("rows").append(...found.slice(from, limit).map(draw));
  const shown = Math.min(found.length, limit);
  $("count").textContent = `${shown} shown of ${found.length} that fit, ${rows.length} in all`;
  $("more").hidden = found.length <= limit;
}

function draw(row) {
  const item = $("row").content.cloneNode(true).firstElementChild;
  item.querySelector("h2").textContent = row.instruction;
  const tags = [row.id, row.stage, `round ${row.round}`, row.reason.replaceAll("_", " ")];
  if (row.score !== null) tags.push(`similarity ${row.score.toFixed(3)}`);
  for (const tag of tags.filter(Boolean)) {
    const span = document.createElement("span");
    span.textContent = tag;
    if (tag === "kept") span.className = "gained";
    item.querySelector(".tags").append(span, " ");
  }
  const list = item.querySelector("dl");
  const texts = [
    ["Input", row.input],
    ["Output", row.output],
    ["Why", row.why],
    ["Nearest", row.nearest],
    ["Provenance", row.provenance],
  ];
  for (const [name, text] of texts) {
    if (!text.trim()) continue;
    const term = document.createElement("dt");
    const said = document.createElement("dd");
    term.textContent = name;
    said.textContent = text;
    said.className = "text";
    said.dir = "auto";
    list.append(term, said);
  }
  const box = item.querySelector("input");
  box.checked = marked.has(row.id);
  // What was dropped is in no data, so there is nothing to take out.
  if (row.reason !== "kept") box.parentElement.remove();
  box.addEventListener("change", () => mark(row, box.checked));
  return item;
}

function mark(row, bad) {
  if (bad) marked.set(row.id, row);
  else marked.delete(row.id);
  saved = marked.size === 0;
  $("bad-count").textContent = marked.size;
  $("bad").hidden = marked.size === 0;
}

function save() {
  const lines = [...marked.keys()].map((id) => JSON.stringify({ id, reason: "marked on rows.html" }));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "application/json" }));
  link.download = "bad-rows.jsonl";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  saved = true;
}

function begin() {
  for (const field of ["reason", "stage", "round"]) choices(field, field);
  $("loading").hidden = true;
  $("browser").hidden = false;
  let waiting = 0;
  const soon = () => {
    clearTimeout(waiting);
    waiting = setTimeout(filter, 150);
  };
  for (const id of ["needle", "low", "high"]) $(id).addEventListener("input", soon);
  for (const id of ["reason", "stage", "round", "marked"]) $(id).addEventListener("change", filter);
  $("more").addEventListener("click", () => {
    const first = limit;
    limit += STEP;
    show();
    // Who came by keyboard goes on reading where the new rows begin.
    const fresh = $("rows").children[first];
    if (fresh) {
      fresh.tabIndex = -1;
      fresh.focus();
    }
  });
  $("save").addEventListener("click", save);
  addEventListener("beforeunload", (event) => {
    if (!saved) event.preventDefault();
  });
  filter();
}

load(0);
