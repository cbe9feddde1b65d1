// What the person chose for this browser, applied before the first paint so that nothing flashes
// or moves: light or dark where it differs from the system's preference, and the size of tiles.
(() => {
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");

  root.classList.add("js");
  show(localStorage.getItem("theme"));
  const tile = localStorage.getItem("tile-size");
  if (tile) root.style.setProperty("--tile", `${Number(tile)}px`);

  document.addEventListener("click", (event) => {
    if (!event.target.closest("[data-theme-switch]")) return;
    const wanted = isDark() ? "light" : "dark";
    const systems = system.matches ? "dark" : "light";
    // Choosing what the system has follows the system again.
    if (wanted === systems) localStorage.removeItem("theme");
    else localStorage.setItem("theme", wanted);
    show(localStorage.getItem("theme"));
  });

  function isDark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
  }

  function show(theme) {
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
  }
})();
