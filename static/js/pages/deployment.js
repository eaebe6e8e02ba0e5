// The canary's slider says what it stands at.
"use strict";

for (const slider of document.querySelectorAll("[data-percent]")) {
  const told = slider.parentElement.querySelector("[data-percent-told]");
  const tell = () => { told.textContent = `${slider.value} %`; };
  slider.addEventListener("input", tell);
  tell();
}
