// What the screens with keys share: which key was pressed, when keys are meant for something else,
// and the list of keys behind `?`.
(() => {
  const list = document.getElementById("keys");

  window.rarefind = { keyOf, isTyping, isPlain, hidePeople };

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
})();
