// Dark or light as the reader chose last; else as the system says. Before the page is drawn.
"use strict";
try {
  const theme = localStorage.getItem("theme");
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
} catch { /* no storage: as the system says */ }
