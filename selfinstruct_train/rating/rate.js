"use strict";

const GRADES = ["A", "B", "C", "D"];
const MEANINGS = [
  "correct and satisfying",
  "acceptable with minor imperfections",
  "responds, with significant errors",
  "irrelevant or invalid",
];
const $ = (id) => document.getElementById(id);
let rater = "";
let shown = null;
let current = 0;
// Names of what was done on this page, so that undo takes back what this person did here.
let acts = [];
// Saves go one after another, so that the last word on the disk is the last one given.
let queue = Promise.resolve();

// Marks that reorder or hide text are spelled out, but for joiners that shape honest letters.
const seen = (text) =>
  text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (c) =>
    "\n\t\u200c\u200d".includes(c)
      ? c
      : "⟨U+" + c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0") + "⟩",
  );

async function ask(path, sent) {
  const options = sent && {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(sent),
  };
  const reply = await fetch("api/" + path, options);
  const found = await reply.json().catch(() => ({}));
  if (!reply.ok) throw new Error(found.error || "the server refused");
  return found;
}

function fail(error) {
  const gone = error instanceof TypeError;
  $("status").textContent = "";
  $("alert").textContent = gone
    ? "Not saved: the server is gone. Start 'selfinstruct rate' again and open its new address."
    : "Not saved: " + error.message;
}

function say(text) {
  $("alert").textContent = "";
  $("status").textContent = text;
}

function enqueue(work) {
  queue = queue.then(work).catch(fail);
  return queue;
}

function mark(index) {
  current = index;
  [...$("answers").children].forEach((card, i) => card.classList.toggle("current", i === index));
}

function measure(done) {
  $("progress").max = shown.total;
  $("progress").value = done;
  $("place").textContent =
    `${rater}: question ${shown.index + 1} of ${shown.total}, ${done} graded in full`;
}

function makeGrade(answer, number, level) {
  const label = document.createElement("label");
  const radio = document.createElement("input");
  radio.type = "radio";
  radio.name = "grade-" + answer.id;
  radio.value = GRADES[level];
  radio.checked = answer.grade === GRADES[level];
  radio.setAttribute("aria-label", `${GRADES[level]}, ${MEANINGS[level]}, answer ${number}`);
  radio.addEventListener("change", () => grade(number - 1, GRADES[level]));
  label.append(radio, " " + GRADES[level]);
  label.title = `${MEANINGS[level]} (key ${level + 1})`;
  return label;
}

function makeAnswer(answer, i) {
  const card = $("answer").content.cloneNode(true).firstElementChild;
  card.querySelector("legend").textContent = `Answer ${i + 1}`;
  card.querySelector("pre").textContent = answer.text.trim() ? seen(answer.text) : "(empty)";
  const grades = card.querySelector(".grades");
  grades.setAttribute("aria-label", `Grade of answer ${i + 1}`);
  grades.append(...GRADES.map((_, level) => makeGrade(answer, i + 1, level)));
  const comment = card.querySelector("textarea");
  comment.value = answer.comment;
  comment.setAttribute("aria-label", `Comment on answer ${i + 1}`);
  comment.addEventListener("change", () => {
    answer.comment = comment.value;
    save(answer);
  });
  card.addEventListener("focusin", () => mark(i));
  card.addEventListener("click", () => mark(i));
  return card;
}

function save(answer, before = answer.grade) {
  const asked = shown;
  const sent = {
    rater,
    question: asked.id,
    answer: answer.id,
    grade: answer.grade,
    comment: answer.comment,
  };
  return enqueue(async () => {
    try {
      const { done, act } = await ask("rate", sent);
      acts.push(act);
      asked.done = done;
      if (shown === asked) measure(done);
      say(sent.grade ? `Saved: ${sent.grade}` : "Comment saved");
    } catch (error) {
      // What is not on the disk must not look as if it were.
      answer.grade = before;
      for (const radio of document.getElementsByName("grade-" + answer.id)) {
        radio.checked = radio.value === before;
      }
      throw error;
    }
  });
}

function grade(index, level) {
  const answer = shown.answers[index];
  const card = $("answers").children[index];
  const before = answer.grade;
  answer.grade = level;
  answer.comment = card.querySelector("textarea").value;
  card.querySelector(`input[value="${level}"]`).checked = true;
  mark(index);
  save(answer, before);
}

function gradeByKey(level) {
  grade(current, level);
  const open = shown.answers.findIndex((answer) => !answer.grade);
  if (open < 0) {
    $("next").focus();
  } else {
    mark(open);
    $("answers").children[open].querySelector("input").focus();
  }
}

async function show(index) {
  const place = index === null ? "" : "&index=" + index;
  shown = await ask("question?rater=" + encodeURIComponent(rater) + place);
  rater = shown.rater;
  $("instruction").textContent = seen(shown.instruction);
  $("input").textContent = seen(shown.input);
  $("given").hidden = !shown.input.trim();
  $("question-title").textContent = `Question ${shown.index + 1}`;
  $("answers").replaceChildren(...shown.answers.map(makeAnswer));
  $("previous").disabled = shown.index === 0;
  $("who").hidden = true;
  $("sheet").hidden = $("change").hidden = false;
  measure(shown.done);
  const open = shown.answers.findIndex((answer) => !answer.grade);
  mark(Math.max(0, open));
  $("question-title").focus();
  scrollTo(0, 0);
}

function move(step) {
  // A comment is saved when its field is left.
  document.activeElement?.blur();
  enqueue(async () => {
    const index = shown.index + step;
    if (index < 0) return;
    if (index >= shown.total) {
      say(shown.done === shown.total ? "All questions are graded. Thank you." : "Last question.");
      return;
    }
    say("");
    await show(index);
  });
}

function undo() {
  document.activeElement?.blur();
  enqueue(async () => {
    // After a reload the page knows of no act: then it is the rater's last one.
    const act = acts.at(-1) ?? null;
    const { index, undone } = await ask("undo", { rater, act });
    acts.pop();
    if (!undone) {
      return say(act ? "That was taken back already." : "There is nothing to take back.");
    }
    await show(index === null ? shown.index : index);
    say("Taken back.");
  });
}

function begin(name) {
  rater = name;
  acts = [];
  enqueue(async () => {
    await show(null);
    history.replaceState(null, "", "#rater=" + encodeURIComponent(rater));
    say("");
  });
}

function askName() {
  $("sheet").hidden = $("change").hidden = true;
  $("who").hidden = false;
  $("place").textContent = "";
  $("name").value = "";
  $("name").focus();
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("textarea, input[type='text']");
  if (typing || $("sheet").hidden || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.repeat) return;
  const key = event.key.toLowerCase();
  if ("1234".includes(key) && key.length === 1) gradeByKey(GRADES[Number(key) - 1]);
  else if (key === "u") undo();
  else if (key === "n") move(1);
  else if (key === "p") move(-1);
  else return;
  event.preventDefault();
});
$("who").addEventListener("submit", (event) => {
  event.preventDefault();
  begin($("name").value);
});
$("change").addEventListener("click", askName);
$("previous").addEventListener("click", () => move(-1));
$("next").addEventListener("click", () => move(1));
$("undo").addEventListener("click", undo);

ask("start").then((start) => {
  const known = decodeURIComponent(location.hash.replace(/^#rater=/, "")) || start.rater;
  if (known) begin(known);
  else askName();
}, fail);
