// The results: answers change in place, by click or key, one image or many at once.
(() => {
  const { hidePeople, isPlain, isTyping, keyOf, openLarge, openOutbox, refreshLarge } =
    window.rarefind;
  const search = `/searches/${document.querySelector("[data-search]").dataset.search}`;
  const gallery = document.querySelector(".gallery");
  const unsaved = document.getElementById("unsaved");
  const changed = document.getElementById("changed");

  if (!gallery) return;

  let current = null;
  let anchor = null; // the box ticked last, where a range begins

  const cards = [...gallery.querySelectorAll(".picture-card")];
  const box = (card) => card.querySelector(".tick input");
  const picked = () => cards.filter((card) => box(card).checked);
  const answerOf = (card) => card.dataset.answer || null;
  const saved = new Map(cards.map((card) => [card.dataset.image, answerOf(card)]));
  // The tab that counts images without an answer, if it is the one shown.
  const tab = document.querySelector(".tabs [aria-current] [data-count]").dataset.count;
  const unanswered = ["likely", "open"].includes(tab) ? tab : null;

  const outbox = openOutbox({
    url: `${search}/corrections`,
    onSaved: ({ values }, { along, found_events }) => {
      for (const [image, value] of Object.entries(values)) {
        for (const other of along[image] ?? []) follow(String(other), saved.get(image), value);
        saved.set(image, value);
      }
      const events = document.querySelector("[data-found-events]");
      if (events && found_events !== null) events.textContent = counted(found_events, "event");
      refreshLarge();
      const given = Object.values(values);
      const more = Object.values(along).flat().length;
      const which = `${more === 1 ? "1 image" : `${more} images`} of ${given.length === 1 ? "its event" : "their events"}`;
      const what = given.length === 1 ? "1 image" : `${given.length} images`;
      const be = given.length + more === 1 ? "is" : "are";
      changed.querySelector("[data-changed]").textContent =
        `${what}${more ? ` and ${which}` : ""} ${be} now: ${given[0] || "no answer"}.`;
      changed.hidden = false;
    },
    onTrouble: (sentence) => {
      unsaved.textContent = sentence || "";
      unsaved.hidden = !sentence;
    },
    onRefused: (sentence, { values }) => {
      const waiting = Object.assign({}, ...outbox.waiting().map((gesture) => gesture.values));
      for (const card of cards.filter((one) => one.dataset.image in values)) {
        const { image } = card.dataset;
        show(card, image in waiting ? waiting[image] : saved.get(image));
      }
      refreshLarge();
      unsaved.textContent = `${sentence} Nothing was changed.`;
      unsaved.hidden = false;
    },
  });

  // Undo takes back the newest answer: one that is still on its way goes first.
  document.getElementById("undo").addEventListener("submit", (event) => {
    if (!outbox.waiting().length) return;
    event.preventDefault();
    outbox.settle().then(() => event.target.requestSubmit());
  });

  function give(which, value) {
    const differing = which.filter((card) => answerOf(card) !== value);
    if (!differing.length) return;
    for (const card of differing) show(card, value);
    const values = Object.fromEntries(differing.map((card) => [card.dataset.image, value]));
    outbox.add({ values });
    refreshLarge();
  }

  function show(card, value) {
    recount(answerOf(card) ?? unanswered, -1);
    recount(value ?? unanswered, 1);
    card.dataset.answer = value || "";
    for (const button of card.querySelectorAll('[name="change"]')) {
      const own = button.value.split(":")[1];
      button.setAttribute("aria-pressed", String(own === value));
    }
    // What belongs to another list by now stays in sight until the page is opened again.
    const hasLeft = (value ?? unanswered) !== tab;
    card.classList.toggle("left-list", hasLeft);
    card.querySelector("[data-left-list]").hidden = !hasLeft;
    card.querySelector(".result-line").hidden = hasLeft;
  }

  // An image of the same event that had its answer from the changed one; it may be on another page.
  function follow(image, before, value) {
    const card = cards.find((one) => one.dataset.image === image);
    if (card) {
      if (answerOf(card) === before) show(card, value); // else it was changed since
      saved.set(image, value);
    } else {
      recount(before, -1);
      recount(value, 1);
    }
  }

  function recount(value, by) {
    const figure = value && document.querySelector(`[data-count="${value}"]`);
    if (!figure) return;
    const count = Number(figure.textContent.replace(/\D/g, "")) + by;
    figure.textContent = spaced(count);
    if (value === "yes") {
      document.querySelector("[data-found]").textContent = counted(count, "image");
    }
  }

  function counted(count, what) {
    return `${spaced(count)} ${what}${count === 1 ? "" : "s"}`;
  }

  function spaced(count) {
    return count.toLocaleString("en").replaceAll(",", "\u202f");
  }

  // ---- Tags on many at once --------------------------------------------------------------------

  const tagField = document.getElementById("picked-tag");
  const tagged = document.getElementById("tagged");
  let lastTagged = {}; // tag -> the images that it was put on, for Undo

  tagField.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    tagPicked();
  });

  async function tagPicked() {
    const images = picked().map((card) => card.dataset.image);
    if (!images.length) return trouble("Select the images first.");
    if (!tagField.value.trim()) return tagField.focus();
    const done = await putTags(images, tagField.value, "on");
    if (!done) return;
    lastTagged = done;
    tagField.value = "";
    pickAll(false);
    const count = new Set(Object.values(done).flat()).size;
    const names = Object.keys(done).map((tag) => `“${tag}”`).join(", ");
    tagged.querySelector("[data-tagged]").textContent = count
      ? `Tagged ${count === 1 ? "1 image" : `${count} images`}: ${names}.`
      : `They have ${names} already.`;
    tagged.querySelector("button").hidden = !count;
    changed.hidden = true;
    tagged.hidden = false;
  }

  async function untag() {
    for (const [tag, images] of Object.entries(lastTagged)) {
      if (images.length && !(await putTags(images, tag, "off"))) return;
    }
    lastTagged = {};
    tagged.hidden = true;
  }

  // Which images were changed, by tag; null, and a sentence, where it could not be done.
  async function putTags(images, tag, put) {
    const body = new URLSearchParams({ tag, put });
    for (const image of images) body.append("picked", image);
    const { formAction } = gallery.closest("form").querySelector('[name="put"]');
    const reply = await fetch(formAction, {
      method: "POST",
      headers: { Accept: "application/json" },
      body,
    }).catch(() => null);
    const said = await reply?.json().catch(() => null);
    if (!reply?.ok) {
      trouble(said?.detail ?? "The server does not answer. Nothing was tagged; try again.");
      return null;
    }
    trouble("");
    for (const [name, ids] of Object.entries(said.changed)) {
      for (const card of cards.filter((one) => ids.includes(Number(one.dataset.image)))) {
        showTag(card, name, put);
      }
    }
    return said.changed;
  }

  function showTag(card, tag, put) {
    const line = card.querySelector(".result-tags");
    if (put === "off") {
      return [...line.querySelectorAll(".chip")].find((one) => one.textContent === tag)?.remove();
    }
    const chip = document.createElement("span");
    chip.className = "chip";
    chip.textContent = tag;
    line.append(chip, " ");
  }

  function trouble(sentence) {
    unsaved.textContent = sentence;
    unsaved.hidden = !sentence;
  }

  function focusOn(card) {
    if (!card) return;
    if (current) {
      current.classList.remove("current");
      current.tabIndex = -1;
    }
    current = card;
    card.classList.add("current");
    card.tabIndex = 0;
    card.focus({ preventScroll: true });
    card.scrollIntoView({ block: "nearest" });
  }

  // ---- Keys ------------------------------------------------------------------------------------

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || isTyping(event.target)) return;
    if (!isPlain(event) || document.querySelector("dialog[open]")) return;
    const key = keyOf(event);
    const onCard = event.target.classList.contains("picture-card");
    const act = {
      z: () => !event.shiftKey && document.getElementById("undo").requestSubmit(),
      ...(onCard && {
        y: () => answerByKey("yes"),
        n: () => answerByKey("no"),
        u: () => answerByKey("unsure"),
        f: () => enlarge(current),
        h: () => hidePeople(current),
        Enter: () => enlarge(current),
        t: () => (picked().length ? tagField.focus() : enlarge(current, "tag")),
        c: () => enlarge(current, "note"),
        " ": () => pick(current, !box(current).checked),
        Escape: () => pickAll(false),
        ...movesOf(),
      }),
    }[key];
    if (!act) return;
    event.preventDefault();
    act();
  });

  function answerByKey(value) {
    const many = picked();
    give(many.length ? many : [current], value);
    if (many.length) pickAll(false);
    else focusOn(cards[cards.indexOf(current) + 1] ?? current);
  }

  function movesOf() {
    const across = getComputedStyle(gallery).gridTemplateColumns.split(" ").length;
    const at = cards.indexOf(current);
    return {
      ArrowLeft: () => focusOn(cards[at - 1]),
      ArrowRight: () => focusOn(cards[at + 1]),
      ArrowUp: () => focusOn(cards[at - across]),
      ArrowDown: () => focusOn(cards[at + across]),
      Home: () => focusOn(cards[0]),
      End: () => focusOn(cards.at(-1)),
    };
  }

  // ---- Clicks ----------------------------------------------------------------------------------

  gallery.closest("form").addEventListener("submit", (event) => {
    event.preventDefault();
    const { name, value } = event.submitter ?? {};
    if (name === "put") {
      tagPicked();
    } else if (name === "set") {
      give(picked(), value || null);
      pickAll(false);
    } else if (name === "change") {
      const card = event.submitter.closest(".picture-card");
      const own = value.split(":")[1];
      give([card], own === answerOf(card) ? null : own);
      focusOn(card);
    }
  });

  gallery.addEventListener("click", (event) => {
    const card = event.target.closest(".picture-card");
    if (event.target.matches(".tick input")) {
      if (event.shiftKey && anchor) pickRange(anchor, card, event.target.checked);
      anchor = card;
      countPicked();
    } else if (event.target.closest(".picture") && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      if (event.shiftKey) {
        pickRange(anchor ?? card, card, true);
        anchor ??= card;
      } else {
        focusOn(card);
        enlarge(card);
      }
    }
  });

  document.addEventListener("click", (event) => {
    const what = event.target.closest?.("[data-do]")?.dataset.do;
    if (what === "all" || what === "none") pickAll(what === "all");
    if (what === "untag") untag();
  });

  function pick(card, on) {
    box(card).checked = on;
    anchor = card;
    countPicked();
  }

  function pickRange(from, to, on) {
    const [first, last] = [cards.indexOf(from), cards.indexOf(to)].sort((a, b) => a - b);
    for (const card of cards.slice(first, last + 1)) box(card).checked = on;
    countPicked();
  }

  function pickAll(on) {
    for (const card of cards) box(card).checked = on;
    countPicked();
  }

  function countPicked() {
    document.querySelector("[data-picked]").textContent = picked().length;
  }

  function enlarge(card, remark) {
    openLarge(
      {
        cards: () => cards,
        answerOf,
        answer: (one, value) => give([one], value),
        detailsUrl: (one) => `${search}/images/${one.dataset.image}`,
        undo: () => document.getElementById("undo").requestSubmit(),
        redo: () => {},
        onClose: (one) => focusOn(one ?? cards.at(-1)),
      },
      card,
      remark,
    );
  }

  // ---- Size of the images, remembered ----------------------------------------------------------

  const slider = document.querySelector("[data-size]");
  slider.value = localStorage.getItem("results size") ?? slider.value;
  slider.addEventListener("input", () => {
    localStorage.setItem("results size", slider.value);
    resize();
  });
  function resize() {
    gallery.style.setProperty("--size", `${slider.value}px`);
  }

  resize();
  for (const card of cards) card.tabIndex = -1;
  cards[0].tabIndex = 0;
  gallery.addEventListener("focusin", (event) => {
    const card = event.target.closest(".picture-card");
    if (event.target === card && card !== current) focusOn(card);
  });
  outbox.settle();
})();
