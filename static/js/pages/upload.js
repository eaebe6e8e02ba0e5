// Uploads: a file that is dropped, and how much of it has been sent. Without this the form goes by itself.
"use strict";

const mib = (bytes) => `${(bytes / 1048576).toFixed(bytes < 10485760 ? 1 : 0)} MiB`;

function takeDrops(form) {
  const place = form.querySelector("[data-drop]");
  const input = form.querySelector("input[type=file]");
  const words = place.querySelector(".drop-words");
  const told = words.textContent;
  const show = () => {
    const file = input.files[0];
    words.textContent = file ? `${file.name}, ${mib(file.size)}` : told;
    place.classList.toggle("drop-full", Boolean(file));
  };
  for (const name of ["dragenter", "dragover"]) {
    place.addEventListener(name, (event) => {
      event.preventDefault();
      place.classList.add("drop-over");
    });
  }
  for (const name of ["dragleave", "drop"]) {
    place.addEventListener(name, () => place.classList.remove("drop-over"));
  }
  place.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length !== 1) {
      pulvinar.toast("Drop one file at a time; several belong into a zip.", "bad");
      return;
    }
    input.files = event.dataTransfer.files;
    show();
  });
  input.addEventListener("change", show);
  show();
}

function send(form) {
  const request = new XMLHttpRequest();
  const place = form.querySelector("[data-sending]");
  const bar = place.querySelector("progress");
  const words = place.querySelector("p");
  const button = form.querySelector("button:not([type=button])");
  const began = performance.now();
  const end = (message) => {
    button.disabled = false;
    place.hidden = true;
    delete form.dataset.sent;
    if (message) pulvinar.toast(message, "bad");
  };
  request.upload.addEventListener("progress", (event) => {
    const seconds = (performance.now() - began) / 1000;
    const left = (event.total - event.loaded) / (event.loaded / seconds);
    bar.value = event.loaded / event.total;
    words.textContent = event.loaded < event.total
      ? `${mib(event.loaded)} of ${mib(event.total)}${seconds > 2 ? `, ${Math.ceil(left)} s left` : ""}`
      : "Sent. Unpacking …";
  });
  request.addEventListener("load", () => {
    const next = request.getResponseHeader("HX-Redirect");
    if (next) {
      location.assign(next);
    } else if (request.getResponseHeader("HX-Retarget") || request.status === 401) {
      form.dataset.renew = "";
      end("Your session has ended. Sign in in another tab, then send this again: nothing here is lost.");
    } else {
      const answer = new DOMParser().parseFromString(request.responseText, "text/html");
      form.querySelector("[data-refused]").replaceChildren(...answer.body.childNodes);
      end("");
    }
  });
  request.addEventListener("error", () => end("The connection broke before the file was whole. Try again."));
  request.addEventListener("abort", () => end("The upload was ended."));
  request.open("POST", form.action);
  request.setRequestHeader("HX-Request", "true");
  request.setRequestHeader("X-CSRF-Token", pulvinar.csrf);
  button.disabled = true;
  place.hidden = false;
  bar.value = 0;
  words.textContent = "";
  form.querySelector("[data-refused]").replaceChildren();
  request.send(new FormData(form));
}

for (const form of document.querySelectorAll("form[data-upload]")) {
  takeDrops(form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if ("renew" in form.dataset) await pulvinar.renew();
    delete form.dataset.renew;
    send(form);
  });
}
