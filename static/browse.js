// Browsing: keys for the links that name one, the size of the tiles, photos dropped or pasted.
(() => {
  const typing = "input:not([type=checkbox]):not([type=radio]):not([type=file]), textarea, select";

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    if (event.target.closest(typing)) return;
    document.querySelector(`a[data-key="${CSS.escape(event.key)}"]`)?.click();
  });

  const slider = document.querySelector("[data-tile-size]");
  if (slider) {
    slider.value = localStorage.getItem("tile-size") ?? slider.value;
    slider.addEventListener("input", () => {
      localStorage.setItem("tile-size", slider.value);
      document.documentElement.style.setProperty("--tile", `${slider.value}px`);
    });
  }

  // The neighbours' large pictures are fetched early, so that the arrow keys answer at once.
  window.addEventListener("load", () => {
    for (const link of document.querySelectorAll("[data-fetch]")) new Image().src = link.dataset.fetch;
  });

  // Back to a form that was sent, kept in the browser's memory: the server knows what it opened.
  let sent = false;
  document.addEventListener("submit", ({ target }) => {
    sent ||= target.elements.opening_key !== undefined;
  });
  window.addEventListener("pageshow", (event) => {
    if (event.persisted && sent) location.reload();
  });

  // A photo may be dropped or pasted anywhere on a page that takes examples.
  document.addEventListener("dragover", (event) => {
    if (!hasFiles(event.dataTransfer)) return;
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dropping");
  });
  document.addEventListener("drop", (event) => {
    document.body.classList.remove("dropping");
    if (!hasFiles(event.dataTransfer)) return;
    event.preventDefault();
    add(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => {
    if (!hasFiles(event.clipboardData)) return;
    event.preventDefault();
    add(event.clipboardData.files);
  });

  function hasFiles(transfer) {
    return transfer !== null && [...transfer.types].includes("Files");
  }

  function add(files) {
    const field = document.querySelector("[data-photo-form] input[type=file]");
    if (!field || files.length === 0) return;
    field.files = files;
    field.dispatchEvent(new Event("change", { bubbles: true }));
  }
})();
