// What the page does by itself, beside frame.js: parts replaced as they come, dialogs.
// It never makes HTML of text: what comes from the server is escaped there.
"use strict";
(() => {
  const { byId, localTimes, say } = globalThis.frame;

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

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.sort !== undefined) {
      byId("images-sort").value = button.dataset.sort;
      htmx.trigger("#images-form", "submit");
    }
  });

  document.addEventListener("DOMContentLoaded", () => {
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
