// What every page does: the token with every request of a script, search, theme, copying, dialogs, times.
"use strict";

const tokenOf = (page) => page.querySelector("meta[name=csrf]")?.content ?? "";

document.addEventListener("htmx:config:request", (event) => {
  const request = event.detail.ctx.request;
  if (request.method !== "GET") request.headers["X-CSRF-Token"] = pulvinar.csrf;
});

// A page that is older than its session takes that one's token, so that what was typed here need not be typed again.
async function renew() {
  const answer = await fetch(location.href, { cache: "no-store" });
  pulvinar.csrf = tokenOf(new DOMParser().parseFromString(await answer.text(), "text/html"));
  for (const field of document.querySelectorAll("input[name=csrf]")) field.value = pulvinar.csrf;
}

// Search: "/" leads there from anywhere but a field; arrows move among what was found; Escape closes it.
const search = document.querySelector("[data-search]");
const found = document.getElementById("found");
const typing = (element) => element.closest("input, textarea, select, [contenteditable]") !== null;
document.addEventListener("keydown", (event) => {
  if (!search) return;
  if (event.key === "/" && !event.ctrlKey && !event.metaKey && !event.altKey && !typing(event.target)) {
    event.preventDefault();
    search.focus();
    search.select();
  } else if (event.key === "Escape" && search.form.contains(event.target)) {
    found.replaceChildren();
    search.blur();
  } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && search.form.contains(event.target)) {
    const stops = [search, ...found.querySelectorAll("a")];
    const next = stops.indexOf(document.activeElement) + (event.key === "ArrowDown" ? 1 : -1);
    event.preventDefault();
    stops[Math.min(Math.max(next, 0), stops.length - 1)].focus();
  }
});
search?.form.addEventListener("focusout", (event) => {
  if (event.relatedTarget && !search.form.contains(event.relatedTarget)) found.replaceChildren();
});

// The theme, without asking the server.
document.querySelector("[data-theme-switch]")?.addEventListener("submit", (event) => {
  const chosen = event.submitter.value;
  event.preventDefault();
  document.cookie = `pulvinar_theme=${chosen}; path=/; max-age=31536000; samesite=lax`;
  dispatchEvent(new CustomEvent("pulvinar:choose-theme", { detail: chosen }));
  for (const button of event.target.querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.value === chosen));
  }
});

// What is said in passing goes by itself; what went wrong stays until it is closed.
function passing(note) {
  if (note && !note.matches(".note-bad")) setTimeout(() => note.remove(), 10000);
}

function toast(message, tone = "good") {
  const note = document.createElement("div");
  const close = document.createElement("button");
  note.className = `note note-${tone}`;
  close.className = "btn-close";
  close.type = "button";
  close.dataset.close = "";
  close.setAttribute("aria-label", "Close");
  note.append(Object.assign(document.createElement("span"), { textContent: message }), close);
  document.getElementById("toasts")?.append(note);
  passing(note);
}

// The clipboard is there over TLS and on this machine only; elsewhere the text is selected, ready for Ctrl+C.
async function copy(element) {
  try {
    await navigator.clipboard.writeText(element.textContent);
    toast("Copied.");
  } catch {
    getSelection().selectAllChildren(element);
    toast("Selected; press Ctrl+C to copy.");
  }
}

document.addEventListener("click", (event) => {
  const copying = event.target.closest("[data-copy]");
  const closing = event.target.closest("[data-close]");
  if (copying) copy(document.querySelector(copying.dataset.copy));
  if (closing) closing.parentElement.remove();
});

// A dialog that asks for a name goes on only with that name.
function checkName(form) {
  const button = form.querySelector("button:not([type=button])");
  button.disabled = form.elements.confirm.value !== form.dataset.confirm;
}
document.addEventListener("input", (event) => {
  const form = event.target.closest("form[data-confirm]");
  if (form) checkName(form);
});

// A form is sent once, however often its button is pressed; coming back to the page frees it.
document.addEventListener("submit", (event) => {
  if (event.defaultPrevented || event.target.method !== "post") return;
  if (event.target.dataset.sent) event.preventDefault();
  event.target.dataset.sent = "1";
});
addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});

const spans = [[60, "second"], [60, "minute"], [24, "hour"], [30, "day"], [12, "month"], [Infinity, "year"]];
function distance(seconds) {
  let span = Math.abs(seconds);
  if (span < 10) return "just now";
  let unit = "year";
  for (const [length, name] of spans) {
    unit = name;
    if (span < length) break;
    span /= length;
  }
  const number = Math.max(1, Math.floor(span));
  const words = `${number} ${unit}${number === 1 ? "" : "s"}`;
  return seconds > 0 ? `${words} ago` : `in ${words}`;
}
function keepTimes(root) {
  for (const time of root.querySelectorAll("time[data-ago]")) {
    time.textContent = distance((Date.now() - Date.parse(time.dateTime)) / 1000);
  }
}
setInterval(() => { if (!document.hidden) keepTimes(document); }, 15000);

// Parts that ask again every few seconds (hx-trigger="every …") do so while the page is seen; what a hidden one has
// missed is asked for once when it is seen again.
const missed = new Set();
document.addEventListener("every", (event) => {
  if (!document.hidden) return;
  event.stopImmediatePropagation();
  missed.add(event.target);
}, true);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  keepTimes(document);
  for (const part of missed) if (part.isConnected) part.dispatchEvent(new CustomEvent("every"));
  missed.clear();
});

passing(document.querySelector("#toasts .note"));

function prepare(root) {
  for (const form of root.querySelectorAll("form[data-confirm]")) checkName(form);
}
prepare(document);
document.addEventListener("htmx:after:swap", (event) => prepare(event.target.querySelectorAll ? event.target : document));
window.pulvinar = { toast, renew, csrf: tokenOf(document) };
