// What the screens with keys share: which key was pressed, when keys are meant for something else,
// the list of keys behind `?`, what Back closes, and which click is none.
(() => {
  const list = document.getElementById("keys");

  const DOUBLE_CLICK_MS = 400;

  window.rarefind = { keyOf, isTyping, isPlain, hidePeople, showOver };

  // Hide the image of a card, as it shows a person; all of its event where the card stands for one.
  function hidePeople(card) {
    const form = document.getElementById("hide-people");
    const { image_ids: image, round_id: round } = form.elements;
    image.value = card.dataset.image;
    const isAlone = !card.dataset.event || card.querySelector("[data-alone]").checked;
    round.disabled = isAlone;
    if (!isAlone) round.value = document.getElementById("grid").dataset.round;
    form.requestSubmit();
  }

  // The key's name, letters in small; on a keyboard of another script the letter in its place.
  function keyOf({ key, code }) {
    if (key.length === 1 && key > "\u007f" && /^Key[A-Z]$/.test(code)) return code[3].toLowerCase();
    return key.length === 1 ? key.toLowerCase() : key;
  }

  function isTyping(target) {
    return target.matches(
      "textarea, select, [contenteditable], input:not([type=radio], [type=checkbox], [type=range])",
    );
  }

  // Keys held together with these belong to the browser.
  function isPlain(event) {
    return !event.ctrlKey && !event.metaKey && !event.altKey;
  }

  document.addEventListener("keydown", (event) => {
    if (event.key !== "?" || !isPlain(event) || isTyping(event.target)) return;
    event.preventDefault();
    if (list.open) list.close();
    else list.showModal();
  });

  document.addEventListener("click", (event) => {
    if (event.target.closest?.('[data-do="keys"]')) list.showModal();
    else if (event.target === list) list.close(); // beside the dialog
  });

  // ---- What Back closes ------------------------------------------------------------------------

  const over = []; // the dialogs over the page, the uppermost last
  let goesBack = false; // by itself: nothing is to be closed

  // Each has an entry of its own in the browser's history, at the address of the page.
  function showOver(dialog) {
    dialog.showModal();
    over.push(dialog);
    const forget = () => {
      if (over.includes(dialog)) over.splice(over.indexOf(dialog), 1);
      matchHistory();
    };
    dialog.addEventListener("close", forget, { once: true });
    matchHistory();
  }

  // A dialog closed by hand takes its entry along; one that a reload closed has left it behind.
  function matchHistory() {
    if (goesBack) return; // once that has come to its end
    const there = history.state?.over ?? 0;
    if (there > over.length) {
      goesBack = true;
      return history.go(over.length - there);
    }
    for (let entry = there + 1; entry <= over.length; entry++) {
      history.scrollRestoration = "manual"; // who leafed on in the dialog looks elsewhere by now
      history.pushState({ over: entry }, "");
    }
  }

  window.addEventListener("popstate", () => {
    const there = history.state?.over ?? 0;
    while (!goesBack && over.length > there) over.pop().close();
    goesBack = false;
    if (!there) history.scrollRestoration = "auto";
    matchHistory();
  });

  matchHistory();

  // ---- Double clicks ---------------------------------------------------------------------------

  let clicked = null; // the answer that was clicked last

  // The second click on an answer would take back what the first one gave.
  document.addEventListener(
    "click",
    (event) => {
      const { target, detail, timeStamp } = event;
      const choice = target.closest?.(".choose :is(label, button)");
      if (!choice || detail === 0) return; // detail 0: by a key
      const soon = clicked?.target === target && timeStamp - clicked.timeStamp < DOUBLE_CLICK_MS;
      const isSecond = clicked?.choice === choice && (detail > 1 || soon);
      clicked = { choice, target, timeStamp };
      if (!isSecond) return;
      event.preventDefault();
      event.stopPropagation();
    },
    true,
  );
})();
