// The strip of an event: its images side by side, each answered by itself, in a dialog over the grid.
(() => {
  const { isPlain, keyOf, openLarge, showOver } = window.rarefind;
  const dialog = document.getElementById("event");

  let view = null; // what openEvent was given
  let current = null; // the card that the next key answers
  let changed = false;

  Object.assign(window.rarefind, { openEvent });

  // `url` brings the strip; `answer(values)` saves answers, each for its image alone;
  // `detailsUrl(card)` says why an image is shown; `onClose(changed)` hears whether any was given.
  async function openEvent(given) {
    view = given;
    changed = false;
    let html;
    try {
      const reply = await fetch(view.url, { headers: { "HX-Request": "true", Accept: "text/html" } });
      if (!reply.ok) throw new Error(reply.status);
      html = await reply.text();
    } catch {
      return view.onProblem("The server does not answer. Press e again in a moment.");
    }
    dialog.innerHTML = html;
    for (const control of dialog.querySelectorAll(".picture, .choose button")) control.tabIndex = -1;
    if (!dialog.open) showOver(dialog);
    focusOn(dialog.querySelector("[data-asked]") ?? cards()[0]);
  }

  const cards = () => [...dialog.querySelectorAll(".event-card")];
  const answerOf = (card) => card.dataset.answer || null;

  function focusOn(card) {
    if (!card) return;
    current?.classList.remove("current");
    for (const one of cards()) one.tabIndex = -1;
    current = card;
    card.classList.add("current");
    card.tabIndex = 0;
    card.focus({ preventScroll: true });
    card.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  function give(which, value) {
    const values = {};
    for (const card of which) {
      card.dataset.answer = value ?? "";
      for (const button of card.querySelectorAll(".choose button")) {
        button.setAttribute("aria-pressed", String(button.value.endsWith(`:${value}`)));
      }
      const words = card.getAttribute("aria-label").replace(/: [^:]*$/, "");
      card.setAttribute("aria-label", `${words}: ${value ?? "no answer"}`);
      values[card.dataset.image] = value;
    }
    changed = true;
    view.answer(values);
  }

  function move(by) {
    const all = cards();
    const to = all.indexOf(current) + by;
    if (to >= 0 && to < all.length) focusOn(all[to]);
  }

  function answerByKey(value) {
    give([current], value);
    move(1);
  }

  function toggle() {
    give([current], answerOf(current) === "yes" ? null : "yes");
  }

  function across() {
    const [first, ...others] = cards();
    const below = others.findIndex((card) => card.offsetTop > first.offsetTop);
    return below < 0 ? cards().length : below + 1;
  }

  function enlarge(card) {
    openLarge(
      {
        cards,
        answerOf,
        answer: (one, value) => give([one], value),
        detailsUrl: view.detailsUrl,
        undo: () => {},
        redo: () => {},
        onClose: (one) => focusOn(one ?? current),
      },
      card,
    );
  }

  dialog.addEventListener("keydown", (event) => {
    if (!isPlain(event) || !current) return;
    const onButton = event.target.matches("button");
    const act = {
      y: () => answerByKey("yes"),
      n: () => answerByKey("no"),
      u: () => answerByKey("unsure"),
      e: () => dialog.close(),
      f: () => enlarge(current),
      ArrowLeft: () => move(-1),
      ArrowRight: () => move(1),
      ArrowUp: () => move(-across()),
      ArrowDown: () => move(across()),
      Home: () => focusOn(cards()[0]),
      End: () => focusOn(cards().at(-1)),
      ...(!onButton && { " ": toggle, Enter: () => enlarge(current) }),
    }[keyOf(event)];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  });

  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) return dialog.close(); // beside it
    const card = event.target.closest(".event-card");
    const button = event.target.closest("button");
    if (button) {
      event.preventDefault();
      if (button.dataset.eventDo === "close") return dialog.close();
      if (button.name === "set") return give(cards(), button.value);
      const value = button.value.split(":")[1];
      give([card], answerOf(card) === value ? null : value);
      return focusOn(card);
    }
    if (!event.target.closest(".picture") || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    focusOn(card);
    enlarge(card);
  });

  dialog.addEventListener("close", () => {
    current = null;
    dialog.replaceChildren();
    view.onClose(changed);
  });
})();
