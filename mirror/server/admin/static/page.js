// What the page does by itself: parts replaced as they come, dialogs, copying, the theme.
// It never makes HTML of text: what comes from the server is escaped there.
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

  // Parts are changed where they differ: focus, selection and what is opened stay.
  const callbacks = {
    beforeAttributeUpdated: (name, node) => !(name === "open" && node.tagName === "DETAILS"),
    beforeNodeMorphed: (old) => !(old.nodeType === Node.ELEMENT_NODE && old.hasAttribute("data-keep")),
  };
  const replace = (part, html) => {
    const fresh = document.createElement("div");
    fresh.innerHTML = html;
    localTimes(fresh);
    Idiomorph.morph(part, Array.from(fresh.childNodes), { morphStyle: "innerHTML", callbacks });
    htmx.process(part);
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

  // The stream, as long as the page is seen.
  let source, again;
  const state = (name, words) => {
    const shown = byId("stream");
    if (shown.dataset.state === name) return;
    shown.dataset.state = name;
    shown.querySelector(".state").textContent = words;
  };
  const filtered = () => byId("pulls-like").value.trim() !== "";
  const listen = () => {
    clearTimeout(again);
    if (source) return;
    source = new EventSource("/live");
    source.onopen = () => state("on", "live");
    source.onerror = () => {
      state("off", "not live");
      if (source && source.readyState === EventSource.CLOSED) {
        source = undefined;  // refused: the browser does not try again by itself
        again = setTimeout(listen, 5000);
      }
    };
    for (const part of document.querySelectorAll("[data-live]")) {
      source.addEventListener(part.dataset.live, (event) => {
        if (part.dataset.live === "pulls" && filtered()) htmx.trigger("#pulls-form", "again");
        else replace(part, event.data);
      });
    }
  };
  const rest = () => {
    if (source) source.close();
    source = undefined;
    clearTimeout(again);
    state("off", "paused");
  };
  document.addEventListener("visibilitychange", () => document.hidden ? rest() : listen());
  window.addEventListener("pagehide", rest);

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
    if (button.dataset.sort !== undefined) {
      byId("images-sort").value = button.dataset.sort;
      htmx.trigger("#images-form", "submit");
    }
    if (button.id === "theme") {
      const root = document.documentElement;
      const isDark = root.dataset.theme ? root.dataset.theme === "dark" :
        matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = isDark ? "light" : "dark";
      try { localStorage.setItem("theme", root.dataset.theme); } catch { /* not kept */ }
    }
  });

  document.addEventListener("DOMContentLoaded", () => {
    localTimes(document);
    if (!document.hidden) listen();
    const dialog = byId("dialog");
    document.body.addEventListener("htmx:afterSwap", (event) => {
      localTimes(event.detail.target);
      if (event.detail.target.id === "dialog-body" && !dialog.open) dialog.showModal();
    });
    document.body.addEventListener("said", (event) => {
      say(event.detail.text, event.detail.look);
      if (event.detail.look === "good") dialog.close();
      byId("warm-form")?.reset();
    });
    document.body.addEventListener("htmx:responseError", (event) => {
      say(event.detail.xhr.responseText.slice(0, 300) || "the mirror refused that", "bad");
    });
    document.body.addEventListener("htmx:sendError", () => say("the mirror does not answer", "bad"));
  });
})();
