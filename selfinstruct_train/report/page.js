"use strict";
// Filters work on the text that the page already shows: no data is handed to this script.
for (const section of document.querySelectorAll(".answers")) {
  const STEP = 20;
  const questions = [...section.querySelectorAll(".question")];
  const texts = questions.map((question) => question.textContent.toLowerCase());
  const needle = section.querySelector(".needle");
  const fate = section.querySelector(".fate");
  const application = section.querySelector(".application");
  const count = section.querySelector(".count");
  const more = section.querySelector(".more");
  let limit = STEP;

  const show = () => {
    const words = needle.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    questions.forEach((question, i) => {
      const fits =
        (!fate.value || question.dataset.fate === fate.value) &&
        (!application || !application.value || question.dataset.group === application.value) &&
        words.every((word) => texts[i].includes(word));
      found += fits;
      question.hidden = !fits || found > limit;
    });
    const shown = Math.min(found, limit);
    count.textContent = `${shown} shown of ${found} that fit, ${questions.length} in all`;
    more.hidden = found <= limit;
  };
  const restart = () => {
    limit = STEP;
    show();
  };
  needle.addEventListener("input", restart);
  fate.addEventListener("change", restart);
  if (application) application.addEventListener("change", restart);
  more.addEventListener("click", () => {
    const first = limit;
    limit += STEP;
    show();
    // Who came by keyboard goes on reading where the new questions begin.
    const fresh = questions.filter((question) => !question.hidden)[first];
    if (fresh) {
      fresh.tabIndex = -1;
      fresh.focus();
    }
  });
  section.querySelector(".controls").hidden = false;
  show();
}
// Paper cannot be unfolded.
addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details:not(.rest)")) folded.open = true;
});
