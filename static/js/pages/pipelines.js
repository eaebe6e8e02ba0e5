// The editor's comforts: numbers beside the lines, marks where something is wrong, and a way to each.
"use strict";

{
  const area = document.querySelector("[data-editor] textarea");
  const checked = document.querySelector("[data-checked]");
  const lines = document.createElement("pre");
  lines.className = "editor-lines font-monospace";
  lines.setAttribute("aria-hidden", "true");
  area.before(lines);

  function number() {
    const count = area.value.split("\n").length;
    while (lines.children.length > count) lines.lastChild.remove();
    while (lines.children.length < count) {
      lines.append(Object.assign(document.createElement("span"), { textContent: lines.children.length + 1 }));
    }
    lines.style.height = `${area.clientHeight}px`;
    lines.scrollTop = area.scrollTop;
  }

  function mark() {
    const wrong = new Set([...checked.querySelectorAll("[data-line]")].map((one) => Number(one.dataset.line)));
    [...lines.children].forEach((one, index) => one.classList.toggle("wrong", wrong.has(index + 1)));
  }

  function go(line) {
    const before = area.value.split("\n").slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0);
    const end = area.value.indexOf("\n", before);
    area.focus();
    area.setSelectionRange(before, end < 0 ? area.value.length : end);
    area.scrollTop = Math.max(0, (line - 4) * parseFloat(getComputedStyle(area).lineHeight));
  }

  area.addEventListener("input", number);
  area.addEventListener("scroll", () => { lines.scrollTop = area.scrollTop; });
  new ResizeObserver(number).observe(area);
  checked.addEventListener("click", (event) => {
    const line = event.target.closest("[data-line]")?.dataset.line;
    if (line) go(Number(line));
  });
  document.addEventListener("htmx:after:swap", () => { number(); mark(); });
  number();
  mark();
}
