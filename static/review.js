// Second opinions by keys: y, n, u answer the current image and move on, Enter saves.
(() => {
  const { keyOf, isPlain, isTyping } = window.rarefind;
  const form = document.getElementById("review");
  const cards = [...form.querySelectorAll(".picture-card")];
  const save = form.querySelector("button.primary");
  let current = null;

  function focusOn(card) {
    current?.classList.remove("current");
    current = card;
    if (!card) return save.focus();
    card.classList.add("current");
    card.focus({ preventScroll: true });
    card.scrollIntoView({ block: "nearest" });
  }

  for (const card of cards) {
    card.tabIndex = 0;
    card.addEventListener("focusin", () => {
      if (card === current) return;
      current?.classList.remove("current");
      current = card;
      card.classList.add("current");
    });
  }

  function answer(value) {
    current.querySelector(`[value="${value}"]`).checked = true;
    focusOn(cards[cards.indexOf(current) + 1]);
  }

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || !isPlain(event) || isTyping(event.target)) return;
    if (document.querySelector("dialog[open]")) return;
    const at = cards.indexOf(current);
    const go = (to) => () => focusOn(cards[Math.min(Math.max(to, 0), cards.length - 1)]);
    const act = {
      ArrowLeft: go(current ? at - 1 : cards.length - 1),
      ArrowRight: go(at + 1),
      ...(current && {
        y: () => answer("yes"),
        n: () => answer("no"),
        u: () => answer("unsure"),
        Enter: () => form.requestSubmit(save),
      }),
    }[keyOf(event)];
    if (!act || (event.key === "Enter" && event.target.closest("a, button"))) return;
    event.preventDefault();
    act();
  });

  const isOpen = (card) => !card.querySelector("input:checked");
  focusOn(cards.find(isOpen) ?? cards[0]);
})();
