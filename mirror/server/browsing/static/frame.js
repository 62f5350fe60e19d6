// What every page does by itself: times, copying, the theme, words on what was done.
// It never makes HTML of text.
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);

  // Times, as the reader's clock has them.
  const localTimes = (root) => {
    for (const each of root.querySelectorAll("time[data-clock]")) {
      const at = new Date(each.dateTime);
      if (Number.isNaN(at.getTime())) continue;
      const day = at.toDateString() === new Date().toDateString() ? "" :
        `${at.toLocaleDateString(undefined, { month: "short", day: "numeric" })} `;
      const seconds = each.dataset.clock === "short" ? undefined : "2-digit";
      each.textContent = day + at.toLocaleTimeString("en-GB",
        { hour: "2-digit", minute: "2-digit", second: seconds });
      each.title = at.toString();
    }
  };

  // What came of an action, for eyes and ears.
  let silence;
  const say = (text, look = "good") => {
    const said = byId("said");
    said.className = look;
    said.textContent = text;
    clearTimeout(silence);
    silence = setTimeout(() => { said.textContent = ""; }, look === "bad" ? 15000 : 5000);
  };

  const copy = async (button) => {
    const text = button.dataset.copy;
    try {
      await navigator.clipboard.writeText(text);
    } catch {  // no clipboard on plain HTTP
      const field = document.createElement("textarea");
      field.value = text;
      field.className = "unseen";
      button.after(field);
      field.select();
      const done = document.execCommand("copy");
      field.remove();
      button.focus();
      if (!done) return say(`copy this yourself: ${text}`, "bad");
    }
    say(`copied: ${text}`);
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.copy !== undefined) copy(button);
    if (button.id === "theme") {
      const root = document.documentElement;
      const isDark = root.dataset.theme ? root.dataset.theme === "dark" :
        matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = isDark ? "light" : "dark";
      try { localStorage.setItem("theme", root.dataset.theme); } catch { /* not kept */ }
    }
  });
  document.addEventListener("DOMContentLoaded", () => localTimes(document));
  globalThis.frame = { byId, localTimes, say };
})();
