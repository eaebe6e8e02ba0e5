// The Playground's comforts: dropping a file, seeing it at once, and a place with its row.
"use strict";

{
  const input = document.querySelector("[data-drop] input[type=file]");
  const drop = document.querySelector("[data-drop]");
  let sound = "";

  document.querySelector("[data-choose] select")?.addEventListener("change", (event) => event.target.form.submit());

  function show(file) {
    drop.querySelector(".drop-preview")?.remove();
    if (sound) URL.revokeObjectURL(sound);
    sound = "";
    if (!file) return;
    const address = URL.createObjectURL(file);
    if (file.type.startsWith("image/")) {
      const picture = Object.assign(new Image(), { src: address, alt: "", className: "drop-preview" });
      picture.addEventListener("load", () => URL.revokeObjectURL(address));
      drop.prepend(picture);
    } else {
      sound = address;
    }
  }

  if (input) {
    input.addEventListener("change", () => {
      show(input.files[0]);
      if (input.files[0]) input.form.requestSubmit();
    });
    for (const kind of ["dragover", "dragenter"]) {
      drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("drop-over"); });
    }
    drop.addEventListener("dragleave", () => drop.classList.remove("drop-over"));
    drop.addEventListener("drop", (event) => {
      event.preventDefault();
      drop.classList.remove("drop-over");
      if (!event.dataTransfer.files.length || input.matches(":disabled")) return;
      input.files = event.dataTransfer.files;
      input.dispatchEvent(new Event("change"));
    });
  }

  // Somebody who has no photo at hand takes ours.
  document.querySelector("[data-example]")?.addEventListener("click", async (event) => {
    const content = await (await fetch(event.target.closest("[data-example]").dataset.example)).blob();
    const files = new DataTransfer();
    files.items.add(new File([content], "cup.jpg", { type: content.type }));
    input.files = files.files;
    input.dispatchEvent(new Event("change"));
  });

  // Pointing at a place marks its row, and the other way round.
  const answer = document.getElementById("answer");
  answer?.addEventListener("pointerover", (event) => {
    const number = event.target.closest("[data-of]")?.dataset.of;
    for (const one of answer.querySelectorAll("[data-of]")) one.classList.toggle("pointed", one.dataset.of === number);
  });
  answer?.addEventListener("pointerleave", () => {
    for (const one of answer.querySelectorAll(".pointed")) one.classList.remove("pointed");
  });

  // What scores less than the slider says is not shown; it was answered all the same.
  answer?.addEventListener("input", (event) => {
    if (!event.target.matches("[data-least]")) return;
    event.target.nextElementSibling.textContent = `${event.target.value} %`;
    for (const one of answer.querySelectorAll("[data-score]")) {
      one.classList.toggle("below-least", Number(one.dataset.score) * 100 < Number(event.target.value));
    }
  });

  // On a phone the answer comes below the form, out of sight.
  document.addEventListener("htmx:after:swap", (event) => {
    if (!answer || event.detail?.ctx?.target !== answer) return;
    const { top } = answer.getBoundingClientRect();
    if (top < 0 || top > innerHeight * 0.7) answer.parentElement.scrollIntoView({ block: "start" });
  });

  // The recording itself never left the browser but to be answered: it is played from here.
  document.addEventListener("htmx:after:swap", () => {
    const player = document.querySelector("[data-listen]");
    if (!player || !sound) return;
    player.src = sound;
    player.hidden = false;
  });
}
