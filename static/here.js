// In a shared search: tells the server that this grid is open, and the person who else is there.
(() => {
  const EVERY_MS = 20_000;
  const layout = document.querySelector("[data-visit]");
  const search = `/searches/${layout.dataset.search}`;

  async function stay() {
    if (document.hidden) return; // who looks at another tab for long has left
    const reply = await fetch(`${search}/here`, { method: "POST" }).catch(() => null);
    if (!reply?.ok) return; // the answers themselves say so when the server is away
    const { people, images } = await reply.json();
    for (const here of document.querySelectorAll("[data-here]")) here.textContent = people.join(", ");
    const own = new Set(images);
    const shown = [...document.querySelectorAll(".cards .picture-card")];
    if (document.querySelector("dialog[open], #grid.busy")) return;
    // After a long pause others were asked some of these.
    if (shown.some((card) => !own.has(Number(card.dataset.image)))) {
      document.dispatchEvent(new Event("rarefind:stale"));
    }
  }

  setInterval(stay, EVERY_MS);
  document.addEventListener("visibilitychange", stay);
  window.addEventListener("pagehide", () => {
    const { visit } = layout.dataset;
    navigator.sendBeacon(`${search}/leave`, new URLSearchParams({ visit }));
  });
})();
