"use strict";
// The page is whole without this: it only shows buttons that copy.
const said = document.getElementById("said");
function select(node) {
  const range = document.createRange();
  range.selectNodeContents(node);
  const selection = window.getSelection();
  selection.removeAllRanges();
  selection.addRange(range);
}
for (const button of document.querySelectorAll("button[data-copies]")) {
  const source = document.getElementById(button.dataset.copies);
  button.hidden = false;
  button.addEventListener("click", async () => {
    let done = false;
    try {
      await navigator.clipboard.writeText(source.textContent);
      done = true;
    } catch {
      select(source);
      try { done = document.execCommand("copy"); } catch { done = false; }
    }
    said.textContent = done ? "Copied." : "Selected: copy with the keyboard.";
    button.classList.toggle("done", done);
    setTimeout(() => { button.classList.remove("done"); said.textContent = ""; }, 2000);
  });
}
