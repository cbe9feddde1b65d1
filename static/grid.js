// The grid: keys, mouse and touch give answers; each is saved at once; the next grid replaces this
// one when its images are decoded. The radio buttons hold the answers; all else follows them.
(() => {
  const {
    hidePeople,
    isPlain,
    isTyping,
    keyOf,
    openEvent,
    openLarge,
    openOutbox,
    refreshLarge,
  } = window.rarefind;
  const search = `/searches/${document.querySelector("[data-search]").dataset.search}`;
  const unsaved = document.getElementById("unsaved");
  const problem = document.getElementById("problem");

  const LONG_PRESS_MS = 450;
  const LONG_PRESS_SLACK_PX = 10;
  const DECODE_AT_MOST_MS = 400; // then the grid is shown, with images still to come
  const NOTICE_MS = 6000;
  const DOUBLE_PRESS_MS = 500;
  const RETRY_MS = 3000;
  const IDLE_MS = 700;
  const YEAR_S = 31_536_000;
  const LATEST = 8; // finds beside their number, as many as the server draws

  let current = null; // the card that the next key answers
  let anchor = null; // where a range began
  let busy = false; // the grid is about to be replaced
  let submitting = null; // the round whose form is on its way, and its answers in it
  let gestures = 0; // answers given on this page
  let steps = Promise.resolve(); // undos and redos, one after the other
  let latest = null; // {row, images}: the row of finds on the page and what it knows, newest first

  const outbox = openOutbox({
    url: `${search}/answers`,
    onSaved: (gesture, reply) => {
      if (reply.stale && gesture.round_id === submitting) return; // the form was quicker
      noteSaved(reply.answers);
      for (const image of Object.keys(gesture.values)) {
        noteAlone(image, gesture.alone?.includes(Number(image)) && reply.answers[image] !== null);
      }
      if (reply.stale) return replaceGrid("get", `${search}?after=already`);
      const events = document.querySelector("[data-found-events]");
      if (events && reply.found_events !== null) events.textContent = reply.found_events;
      button("undo").disabled = !reply.can_undo;
      button("redo").disabled = !reply.can_redo;
    },
    onTrouble: (sentence) => {
      unsaved.textContent = sentence || "";
      unsaved.hidden = !sentence;
    },
    onRefused: (sentence, gesture) => {
      if (gesture.round_id === submitting) return; // so is the form, and says it
      say(sentence);
      replaceGrid("get", search);
    },
  });

  // ---- What is on the page ---------------------------------------------------------------------

  const grid = () => document.getElementById("grid");
  const form = () => document.getElementById("answers");
  const roundId = () => Number(grid().dataset.round);
  const cards = () => [...document.querySelectorAll(".cards .picture-card")];
  const next = () => document.querySelector(".bar .next");
  const button = (step) => document.querySelector(`[form="${step}"]`);
  const taken = () => cards().filter((card) => card.classList.contains("taken"));
  const open = () => cards().filter((card) => !answerOf(card));
  const answerOf = (card) => card.querySelector('[type="radio"]:checked')?.value || null;
  const was = (card) => card.querySelector(".choose [type=hidden]"); // what the server knows
  const aloneOf = (card) => card.querySelector("[data-alone]"); // none where it has no event
  const reasonOf = (card) => card.querySelector("[data-no-reason]");
  const reasons = document.getElementById("reasons");
  const choices = [...reasons.querySelectorAll("[data-reason]")];
  // An answer as it is sent: a no may have its reason, "no:too-poor".
  const givenTo = (card) => {
    const [answer, reason] = [answerOf(card), reasonOf(card).value];
    return answer === "no" && reason ? `no:${reason}` : answer;
  };

  function startGrid() {
    busy = false;
    submitting = null;
    anchor = null;
    const { round } = grid().dataset;
    // A reload with answers still on their way: show them as given.
    for (const gesture of outbox.waiting()) {
      if (String(gesture.round_id) !== round) continue;
      for (const [image, value] of Object.entries(gesture.values)) {
        const card = document.getElementById(`card-${image}`);
        if (!card) continue;
        mark(card, value);
        if (aloneOf(card)) aloneOf(card).checked = gesture.alone?.includes(Number(image)) ?? false;
      }
    }
    for (const card of cards()) {
      card.dataset.drawn ??= was(card).value;
      card.dataset.drawnCount ??= was(card).value ? countOf(card, aloneOf(card)?.defaultChecked) : 0;
      card.tabIndex = -1;
      for (const input of card.querySelectorAll("input, a")) input.tabIndex = -1;
      label(card);
    }
    count();
    const [first] = open().concat(cards());
    if (first) focusOn(first);
    const notice = document.querySelector("[data-notice]");
    setTimeout(() => notice?.remove(), NOTICE_MS);
    fetchUpcoming();
  }

  function focusOn(card, { scroll = true } = {}) {
    if (current) {
      current.classList.remove("current");
      current.tabIndex = -1;
    }
    current = card;
    if (!card) return;
    card.classList.add("current");
    card.tabIndex = 0;
    card.focus({ preventScroll: true });
    if (scroll) card.scrollIntoView({ block: "nearest" });
  }

  function focusOnNext() {
    current?.classList.remove("current");
    next()?.focus();
  }

  function label(card) {
    const place = cards().indexOf(card) + 1;
    const words = { yes: "yes", no: "no", unsure: "unsure" }[answerOf(card)] || "not answered";
    const { event } = card.dataset;
    const of = event ? `, for an event of ${event} images` : "";
    card.setAttribute("aria-label", `Image ${place} of ${cards().length}${of}: ${words}`);
  }

  // Figures follow what is answered since the page was drawn.
  function count() {
    const left = open().length;
    let [found, given] = [0, 0];
    for (const card of cards()) {
      const now = answerOf(card) ? countOf(card, aloneOf(card)?.checked) : 0;
      const drawn = Number(card.dataset.drawnCount);
      given += now - drawn;
      found += (answerOf(card) === "yes" ? now : 0) - (card.dataset.drawn === "yes" ? drawn : 0);
    }
    addTo("[data-found]", "found", found);
    addTo("[data-given]", "given", given);
    showLatest();
    if (!form()) return;
    form().querySelector("[data-answered]").textContent = cards().length - left;
    form().querySelector("[data-unanswered]").textContent = `${left} of ${cards().length}`;
    const rest = form().elements.rest_are_no.checked ? left : 0;
    form().querySelector("[data-rest]").textContent = rest ? `, ${rest} as no` : "";
  }

  // The pictures beside the number found, from those of the grid: no answer waits for the server.
  function showLatest() {
    const row = document.querySelector("#search-top .latest");
    if (latest?.row !== row) {
      const drawn = [...row.children].map((picture) => picture.dataset.latest);
      const older = cards().filter((card) => card.dataset.drawn === "yes");
      const images = new Set([...drawn, ...older.map((card) => card.dataset.image)]);
      latest = { row, images: [...images] };
    }
    const yes = new Map(cards().map((card) => [card.dataset.image, answerOf(card) === "yes"]));
    const kept = latest.images.filter((image) => yes.get(image) ?? true);
    const found = [...yes.keys()].filter((image) => yes.get(image) && !kept.includes(image));
    found.sort((one, other) => other - one); // of several at once, as the server orders them
    latest.images = [...found, ...kept];
    const there = new Map([...row.children].map((picture) => [picture.dataset.latest, picture]));
    const wanted = latest.images.slice(0, LATEST);
    if (wanted.join() === [...there.keys()].join()) return;
    row.replaceChildren(...wanted.map((image) => there.get(image) ?? drawSmall(image)));
  }

  function drawSmall(image) {
    const picture = new Image(32, 32);
    picture.alt = "";
    picture.dataset.latest = image;
    picture.decoding = "async";
    picture.src = `/images/${image}/small`;
    return picture;
  }

  // Images that an answer to this one is for.
  function countOf(card, isAlone) {
    return 1 + (isAlone ? 0 : Number(card.dataset.along ?? 0));
  }

  function addTo(selector, name, more) {
    for (const figure of document.querySelectorAll(selector)) {
      const sum = Number(figure.dataset[name]) + more;
      figure.textContent = sum.toLocaleString("en").replaceAll(",", "\u202f");
    }
  }

  // ---- Answering -------------------------------------------------------------------------------

  // One gesture: the same answer for all of `which`; null takes the answer away.
  function give(which, value) {
    const changed = which.filter((card) => givenTo(card) !== value);
    for (const card of changed) mark(card, value);
    if (changed.length) save(changed);
  }

  function mark(card, given) {
    const [value, reason = ""] = (given || "").split(/:(.*)/s);
    for (const input of card.querySelectorAll('[type="radio"]')) {
      input.checked = input.value === value;
    }
    setReason(card, reason);
    label(card);
  }

  function setReason(card, reason) {
    reasonOf(card).value = reason;
    const choice = choices.find((one) => one.dataset.reason === reason && reason);
    const words = choice?.querySelector("span").textContent ?? (reason || "Why no?");
    card.querySelector(".reason-chip").textContent = words;
  }

  function save(which) {
    gestures += 1;
    count();
    outbox.add({
      round_id: roundId(),
      values: Object.fromEntries(which.map((card) => [card.dataset.image, givenTo(card)])),
      alone: which.filter((card) => aloneOf(card)?.checked).map((card) => Number(card.dataset.image)),
    });
    if (!open().length) fetchUpcoming();
  }

  // The form sends what differs from this: sent again, an answer would undo what another tab gave.
  function noteSaved(answers) {
    for (const [image, value] of Object.entries(answers)) {
      const card = document.getElementById(`card-${image}`);
      if (card) was(card).value = value ?? "";
    }
  }

  // So does what it says of an answer for one image of an event alone.
  function noteAlone(image, isAlone) {
    const card = document.getElementById(`card-${image}`);
    if (!card || !aloneOf(card)) return;
    const name = `was-alone-${image}`;
    card.querySelector(`[name="${name}"]`)?.remove();
    if (!isAlone) return;
    const field = Object.assign(document.createElement("input"), { name, type: "hidden" });
    field.value = "alone";
    aloneOf(card).closest(".event-tools").append(field);
  }

  // A key answers the range if there is one, else the current card, and moves on.
  function answerByKey(value) {
    const range = taken();
    const which = range.length ? range : [current];
    give(which, value);
    letGo();
    const after = cards()[cards().indexOf(which.at(-1)) + 1];
    if (after) focusOn(after);
    else focusOnNext();
    if (range.length > 1) say(`${range.length} images: ${value.replace(":", ", ")}`);
  }

  // Yes for the range or the current card; where all are yes, no answer again.
  function toggle() {
    const which = taken().length ? taken() : [current];
    give(which, which.every((card) => answerOf(card) === "yes") ? null : "yes");
  }

  function take(to) {
    anchor ??= current ?? to;
    const [from, until] = [cards().indexOf(anchor), cards().indexOf(to)].sort((a, b) => a - b);
    cards().forEach((card, place) => {
      card.classList.toggle("taken", place >= from && place <= until);
    });
    focusOn(to);
    say(`${until - from + 1} images taken`);
  }

  function takeAll() {
    for (const card of cards()) card.classList.add("taken");
    say(`All ${cards().length} images taken`);
  }

  function letGo() {
    anchor = null;
    for (const card of taken()) card.classList.remove("taken");
  }

  // ---- Keys ------------------------------------------------------------------------------------

  document.addEventListener("keydown", (event) => {
    const { target } = event;
    const key = keyOf(event);
    if (event.defaultPrevented || isTyping(target)) return;
    if (document.querySelector("dialog[open]")) return;
    const inGrid = Boolean(current) && (target === document.body || form()?.contains(target));
    const onCard = inGrid && (target === document.body || Boolean(target.closest(".cards")));
    const all = event.ctrlKey || event.metaKey;
    if (onCard && all && key === "a" && !event.altKey && !event.shiftKey) {
      event.preventDefault();
      return takeAll();
    }
    if (!isPlain(event)) return;
    if (form()?.classList.contains("asking")) return keyWhileAsking(event);
    const act = {
      z: () => event.repeat || step(event.shiftKey ? "redo" : "undo"), // held down it ran on for rounds
      w: switchWhy,
      ...(onCard && {
        y: () => answerByKey("yes"),
        n: () => answerByKey("no"),
        u: () => answerByKey("unsure"),
        ...Object.fromEntries(
          choices
            .filter((one) => one.dataset.reason)
            .map((one, at) => [at + 1, () => answerByKey(`no:${one.dataset.reason}`)]),
        ),
        f: () => enlarge(current),
        t: () => enlarge(current, "tag"),
        c: () => enlarge(current, "note"),
        h: () => hidePeople(current),
        e: () => showEvent(current),
        o: () => switchAlone(current),
        " ": toggle,
        Enter: () => form().requestSubmit(next()),
        Escape: letGo,
      }),
      ...(inGrid && movesOf(event)),
    }[key];
    if (!act) return;
    event.preventDefault();
    if (!busy || key === "z") act();
  });

  // A button pressed with the mouse does not keep the keys: they go on where the images are. Before
  // it does its work, so that a dialog it opens gives them back there, too.
  document.addEventListener(
    "click",
    ({ pointerType, target }) => {
      if (pointerType !== "mouse" || !current || document.querySelector("dialog[open]")) return;
      if (target.closest?.("button") && !target.closest(".cards")) {
        current.focus({ preventScroll: true });
      }
    },
    true,
  );

  function movesOf({ shiftKey, target }) {
    const all = cards();
    const across = getComputedStyle(form().querySelector(".cards"))
      .gridTemplateColumns.split(" ").length;
    // From the bar back up to the last card.
    const from = target.closest?.(".bar") ? all.length : all.indexOf(current);
    const go = (to) => () => {
      const card = all[Math.min(Math.max(to, 0), all.length - 1)];
      if (shiftKey) return take(card);
      letGo();
      focusOn(card);
    };
    const down = from + across < all.length ? from + across : from;
    const up = from - across >= 0 ? from - across : from;
    return {
      ArrowLeft: go(from - 1),
      ArrowRight: go(from + 1),
      ArrowUp: go(from === all.length ? from - 1 : up),
      ArrowDown: go(down),
      Home: go(0),
      End: go(all.length - 1),
    };
  }

  function keyWhileAsking(event) {
    const buttons = [...form().querySelectorAll(".ask-rest button")];
    const at = buttons.indexOf(document.activeElement);
    const act = {
      Escape: stopAsking,
      ArrowLeft: () => buttons[Math.max(at - 1, 0)].focus(),
      ArrowRight: () => buttons[Math.min(at + 1, buttons.length - 1)].focus(),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  // ---- Mouse and touch -------------------------------------------------------------------------

  let press = null; // a finger on a picture: {card, x, y, timer, long}

  document.addEventListener("pointerdown", (event) => {
    const picture = event.target.closest?.(".cards .picture");
    press = null;
    if (!picture || event.pointerType === "mouse") return;
    const card = picture.closest(".picture-card");
    press = { card, x: event.clientX, y: event.clientY, long: false };
    press.timer = setTimeout(() => {
      press.long = true;
      enlarge(card);
    }, LONG_PRESS_MS);
  });

  document.addEventListener("pointermove", (event) => {
    if (!press || press.long) return;
    const moved = Math.hypot(event.clientX - press.x, event.clientY - press.y);
    if (moved > LONG_PRESS_SLACK_PX) clearTimeout(press.timer);
  });

  for (const kind of ["pointerup", "pointercancel"]) {
    document.addEventListener(kind, () => clearTimeout(press?.timer));
  }

  document.addEventListener("contextmenu", (event) => {
    if (press && event.target.closest?.(".cards .picture")) event.preventDefault();
  });

  document.addEventListener("click", (event) => {
    const control = event.target.closest?.("[data-do]");
    if (control?.dataset.do === "reason") return askWhy(control.closest(".picture-card"));
    if (control?.dataset.do === "event" && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      return showEvent(control.closest(".picture-card"));
    }
    if (control) return doControl(control.dataset.do);
    const rest = event.target.closest?.('.ask-rest [name="rest"]');
    if (rest) form().elements.rest_are_no.checked = rest.value === "no";
    // Back to the images, so that the keys go on; who ticks it by keyboard stays where they are.
    if (event.target.name === "rest_are_no" && event.detail > 0 && current) focusOn(current);
    if (rest || event.target.name === "rest_are_no") count();
    const card = event.target.closest?.(".cards .picture-card");
    if (!card || busy) return;
    const picture = event.target.closest(".picture");
    if (picture && (event.ctrlKey || event.metaKey)) return; // the browser's own new tab
    if (event.shiftKey) {
      event.preventDefault();
      return take(card);
    }
    letGo();
    if (event.target.matches('[type="radio"]')) return clickRadio(card, event.target);
    if (!picture) return;
    event.preventDefault();
    const touched = press?.card === card ? press : null;
    press = null;
    if (touched?.long) return;
    focusOn(card, { scroll: false });
    if (!touched) return enlarge(card);
    const turn = { yes: "no", no: "unsure", unsure: null };
    give([card], answerOf(card) in turn ? turn[answerOf(card)] : "yes");
  });

  // A click with shift takes a range from the card in focus: it must not move the focus first.
  document.addEventListener("mousedown", (event) => {
    if (event.shiftKey && event.target.closest?.(".cards")) event.preventDefault();
  });

  // Clicking the answer that holds takes it away; radio buttons alone can't do that.
  let held = null;

  document.addEventListener("pointerdown", (event) => {
    const input = event.target.closest?.(".cards .choose label")?.querySelector("input");
    held = input?.checked ? input : null;
  });

  function clickRadio(card, input) {
    if (input === held) input.checked = false;
    setReason(card, "");
    held = null;
    label(card);
    save([card]);
    focusOn(card, { scroll: false });
  }

  // ---- Why it is a no, by mouse or touch -------------------------------------------------------

  let asked = null; // the card that the open list of reasons is about

  function askWhy(card) {
    if (busy) return;
    asked = card;
    focusOn(card, { scroll: false });
    reasons.showModal();
    const now = choices.find((one) => one.dataset.reason === reasonOf(card).value);
    now?.focus();
  }

  reasons.addEventListener("click", (event) => {
    const choice = event.target.closest("[data-reason]");
    if (choice) answerWhy(choice.dataset.reason);
    else if (event.target === reasons) reasons.close();
  });

  reasons.addEventListener("keydown", (event) => {
    const choice = choices.filter((one) => one.dataset.reason)[Number(event.key) - 1];
    if (!choice || !isPlain(event)) return;
    event.preventDefault();
    answerWhy(choice.dataset.reason);
  });

  function answerWhy(reason) {
    reasons.close();
    if (!asked.isConnected) return;
    give([asked], reason ? `no:${reason}` : "no");
    focusOn(asked, { scroll: false });
  }

  document.addEventListener("focusin", (event) => {
    const card = event.target.closest?.(".cards .picture-card");
    if (card && card !== current) focusOn(card, { scroll: false });
  });

  function doControl(what) {
    ({
      why: switchWhy,
      rail: switchRail,
      back: stopAsking,
    })[what]?.();
  }

  function switchWhy() {
    const shown = document.body.classList.toggle("why-shown");
    remember("rarefind_why", shown ? "shown" : "hidden");
    document.querySelector('[data-do="why"]')?.setAttribute("aria-pressed", String(shown));
  }

  function switchRail() {
    const isSheet = matchMedia("(max-width: 900px), (max-height: 560px)").matches;
    let shown;
    if (isSheet) {
      shown = document.body.classList.toggle("rail-open");
    } else {
      shown = !document.body.classList.toggle("rail-closed");
      remember("rarefind_rail", shown ? "open" : "closed");
    }
    document.querySelector('.top [data-do="rail"]').setAttribute("aria-expanded", String(shown));
  }

  function remember(name, value) {
    document.cookie = `${name}=${value}; path=/searches; max-age=${YEAR_S}; samesite=lax`;
  }

  // ---- The large view --------------------------------------------------------------------------

  function enlarge(card, remark) {
    const view = {
      cards,
      answerOf,
      answer: (one, value) => busy || give([one], value),
      detailsUrl: (one) => `${search}/images/${one.dataset.image}`,
      undo: () => step("undo"),
      redo: () => step("redo"),
      onClose: (one) => {
        if (!one) focusOnNext();
        else if (one.isConnected) focusOn(one);
      },
    };
    openLarge(view, card, remark);
  }

  // ---- Events ----------------------------------------------------------------------------------

  // Ticked, an answer is for this image and not for its event.
  document.addEventListener("change", (event) => {
    if (!event.target.matches?.("[data-alone]")) return;
    const card = event.target.closest(".picture-card");
    focusOn(card, { scroll: false });
    sayAlone(card);
  });

  function switchAlone(card) {
    if (!aloneOf(card)) return say("This image belongs to no event.");
    aloneOf(card).checked = !aloneOf(card).checked;
    sayAlone(card);
  }

  function sayAlone(card) {
    const images = countOf(card, aloneOf(card).checked);
    say(images === 1 ? "Answers only this image." : `Answers ${images} images of its event.`);
    if (answerOf(card)) save([card]);
  }

  function showEvent(card) {
    if (busy) return;
    if (!card.dataset.event) return say("This image belongs to no event.");
    focusOn(card, { scroll: false });
    outbox.settle().then(() =>
      openEvent({
        url: `${search}/events/${card.dataset.image}`,
        answer: (values) => {
          gestures += 1;
          outbox.add({
            round_id: roundId(),
            values,
            alone: Object.keys(values).map(Number),
          });
        },
        detailsUrl: (one) => `${search}/images/${one.dataset.image}`,
        onProblem: say,
        onClose: (changed) => {
          if (!changed) return focusOn(document.getElementById(card.id));
          begin();
          outbox.settle().then(() => replaceGrid("get", search));
        },
      }),
    );
  }

  // ---- Submit, undo, redo ----------------------------------------------------------------------

  let shownAt = -Infinity; // when this grid replaced another
  let clickedAt = -Infinity; // when a button that submits was pressed with the mouse or a finger
  document.addEventListener("rarefind:grid", () => {
    shownAt = performance.now();
  });

  // The second half of a double click lies on what the first has put there: it is not about that.
  document.addEventListener(
    "click",
    (event) => {
      const control = event.target.closest?.(".ask-rest button, .bar .rest, .bar .next");
      if (!control || !event.detail) return; // a key
      if (performance.now() - clickedAt < DOUBLE_PRESS_MS) {
        event.preventDefault();
        event.stopPropagation();
      } else if (!control.matches(".rest")) {
        clickedAt = performance.now();
      }
    },
    true,
  );

  // Held down, Enter would answer grid after grid.
  document.addEventListener(
    "keydown",
    (event) => {
      clickedAt = -Infinity; // between the halves of a double click there is no key
      if (event.key === "Enter" && event.repeat && form()?.contains(event.target)) {
        event.preventDefault();
        event.stopPropagation();
      }
    },
    true,
  );

  // htmx asks before each request: answers still on their way go first, unless the form says the same.
  document.addEventListener("htmx:confirm", (event) => {
    const { elt, triggeringEvent, issueRequest } = event.detail;
    if (!["answers", "undo", "redo"].includes(elt.id)) return;
    event.preventDefault();
    if (busy) return;
    const submitter = triggeringEvent?.submitter;
    if (elt.id === "answers" && submitter?.name !== "rest") {
      // The second half of a double press on the grid before is not about this one.
      if (isUntouched() && performance.now() - shownAt < DOUBLE_PRESS_MS) return;
      if (mustAsk()) return ask();
    }
    begin();
    if (elt.id === "answers" && isInForm(outbox.waiting())) {
      submitting = roundId();
      issueRequest(true);
    } else {
      outbox.settle().then(() => issueRequest(true));
    }
  });

  // Whether the form says just what these gestures say, so that it does not matter which comes first.
  function isInForm(waiting) {
    const seen = new Set();
    return waiting.every(({ round_id, values, alone = [] }) => {
      if (round_id !== roundId()) return false;
      return Object.entries(values).every(([image, value]) => {
        const card = document.getElementById(`card-${image}`);
        if (!card || seen.has(image)) return false;
        seen.add(image);
        const isAlone = aloneOf(card)?.checked ?? false;
        return givenTo(card) === value && isAlone === alone.includes(Number(image));
      });
    });
  }

  // Not of who ticked it: the button says how many it answers, and undo takes them back.
  function mustAsk() {
    return open().length > 0 && !form().elements.rest_are_no.checked;
  }

  function isUntouched() {
    return open().length === cards().length;
  }

  function ask() {
    form().classList.add("asking");
    form().querySelector(".ask-rest").hidden = false;
    form().querySelector('.ask-rest [value="later"]').focus(); // Enter again assumes nothing
    say(`${open().length} of ${cards().length} images are not answered.`);
  }

  function stopAsking() {
    form().classList.remove("asking");
    form().querySelector(".ask-rest").hidden = true;
    const [first] = open().concat(cards());
    focusOn(first);
  }

  // Several in a row wait for each other, and for answers on their way.
  function step(which) {
    steps = steps.then(async () => {
      if (busy) await gridIsThere();
      await outbox.settle();
      if (button(which)?.disabled ?? true) return say(`There is nothing to ${which}.`);
      const done = gridIsThere();
      document.getElementById(which).requestSubmit();
      await done;
    });
  }

  function gridIsThere() {
    return new Promise((resolve) => {
      document.addEventListener("rarefind:grid", resolve, { once: true });
    });
  }

  function begin() {
    busy = true;
    problem.replaceChildren();
    grid().classList.add("busy");
  }

  function end() {
    busy = false;
    submitting = null;
    grid().classList.remove("busy");
    document.dispatchEvent(new Event("rarefind:grid"));
  }

  function replaceGrid(verb, url) {
    begin();
    return htmx.ajax(verb, url, { target: "#grid", swap: "outerHTML settle:0ms" });
  }

  // The images of the new grid are decoded before it is put in place, so that nothing flashes.
  document.addEventListener("htmx:beforeSwap", (event) => {
    const { target, xhr, serverResponse, requestConfig } = event.detail;
    if (target.id !== "grid" || xhr.status !== 200) return;
    if (requestConfig.elt.id === "answers") outbox.drop(roundId());
    event.detail.shouldSwap = false;
    showGrid(target, serverResponse);
  });

  async function showGrid(target, html) {
    await decodeImages(html);
    const before = new Map(cards().map((card) => [card.id, answerOf(card)]));
    const place = current?.id;
    htmx.swap(target, html, { swapStyle: "outerHTML", settleDelay: 0 });
    current = null;
    startGrid();
    // The same round again: where an answer was taken back, or where one was.
    const isChanged = ({ id }, answer) => before.has(id) && before.get(id) !== answer;
    const changed = cards().find((card) => isChanged(card, answerOf(card)));
    const same = changed ?? document.getElementById(place);
    if (same) focusOn(same);
    say(grid().dataset.announce);
    refreshLarge();
    document.dispatchEvent(new Event("rarefind:grid"));
  }

  function decodeImages(html) {
    const page = new DOMParser().parseFromString(html, "text/html");
    const all = [...page.querySelectorAll(".cards img")].map(({ src }) => {
      const image = new Image();
      image.src = src;
      return image.decode().catch(() => {});
    });
    const late = new Promise((resolve) => setTimeout(resolve, DECODE_AT_MOST_MS));
    return Promise.race([Promise.all(all), late]);
  }

  // The server is away: the same gesture is sent again until it answers.
  document.addEventListener("htmx:sendError", retry);
  document.addEventListener("htmx:timeout", retry);
  document.addEventListener("htmx:responseError", (event) => {
    if ([502, 503, 504].includes(event.detail.xhr.status)) retry(event);
    else end();
  });

  function retry({ detail: { elt, requestConfig } }) {
    problem.replaceChildren(); // every page's word for this is that something may be lost
    unsaved.textContent = "The server does not answer. Your answers are safe; trying again.";
    unsaved.hidden = false;
    const submitter = requestConfig.triggeringEvent?.submitter;
    setTimeout(() => {
      unsaved.hidden = true;
      end();
      if (elt.id === "answers") elt.requestSubmit(submitter);
      else if (elt instanceof HTMLFormElement) elt.requestSubmit();
      else replaceGrid("get", search);
    }, RETRY_MS);
  }

  // ---- Early fetching --------------------------------------------------------------------------

  let soon = null;

  // Asked for when nothing else goes on; given up as soon as the grid changes again.
  function fetchUpcoming() {
    clearTimeout(soon);
    soon = setTimeout(async () => {
      await outbox.settle();
      const reply = await fetch(`${search}/upcoming`).catch(() => null);
      if (!reply?.ok) return; // only a head start: the images come with their grid
      for (const image of await reply.json()) {
        const early = new Image();
        early.fetchPriority = "low";
        early.src = `/images/${image}/small`;
      }
    }, IDLE_MS);
  }

  function say(sentence) {
    document.getElementById("announce").textContent = sentence;
  }

  // A shared search: others were asked some of these images.
  document.addEventListener("rarefind:stale", () => replaceGrid("get", search));

  // Back from another page by the browser's memory: the grid may have moved on since.
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) replaceGrid("get", search);
  });

  // ---- Another tab of the same search ----------------------------------------------------------

  let isAway = false; // this tab is in the background
  let looking = false;

  window.addEventListener("blur", () => (isAway = true));
  window.addEventListener("focus", comeBack);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) isAway = true;
    else comeBack();
  });

  function comeBack() {
    if (!isAway) return;
    isAway = false;
    lookAgain();
  }

  // Shows what stands by now, unless somebody is in the middle of something here.
  async function lookAgain() {
    if (looking || !isIdle()) return;
    const [shown, known] = [grid(), gestures];
    looking = true;
    const html = await fetchGrid();
    looking = false;
    if (!html || !isIdle() || grid() !== shown || gestures !== known) return;
    const page = new DOMParser().parseFromString(html, "text/html");
    const standing = page.getElementById("grid");
    if (!standing) return;
    if (isSameGrid(standing)) return follow(page);
    begin();
    showGrid(shown, html);
  }

  function isIdle() {
    const elsewhere = document.querySelector("dialog[open]") || isTyping(document.activeElement);
    const asking = form()?.classList.contains("asking");
    return !(document.hidden || busy || asking || elsewhere || outbox.waiting().length);
  }

  async function fetchGrid() {
    const headers = { "HX-Request": "true", Accept: "text/html" };
    try {
      const reply = await fetch(search, { headers });
      return reply.ok ? await reply.text() : null;
    } catch {
      return null; // the next answer says that the server is away
    }
  }

  function isSameGrid(standing) {
    const [there, here] = [standing, grid()].map((one) => [
      one.dataset.round,
      ...[...one.querySelectorAll(".cards .picture-card")].map((card) => card.id),
    ]);
    return there.join() === here.join();
  }

  // The same images: what was answered elsewhere is marked, and all else stays as it is.
  function follow(page) {
    for (const other of page.querySelectorAll(".cards .picture-card")) {
      const card = document.getElementById(other.id);
      const { image } = card.dataset;
      const given = was(other).value;
      const [known, isAlone] = [card, other].map(
        (one) => one.querySelector(`[name="was-alone-${image}"]`) !== null,
      );
      if (was(card).value !== given || known !== isAlone) {
        if (aloneOf(card)) aloneOf(card).checked = isAlone;
        mark(card, given);
        was(card).value = given;
        noteAlone(image, isAlone);
      }
      card.dataset.drawn = given;
      card.dataset.drawnCount = given ? countOf(card, isAlone) : 0;
    }
    for (const id of ["search-top", "rail-figures"]) {
      document.getElementById(id).replaceWith(page.getElementById(id));
    }
    for (const step of ["undo", "redo"]) {
      if (button(step)) button(step).disabled = page.querySelector(`[form="${step}"]`).disabled;
    }
    count();
  }

  startGrid();
  outbox.settle();
})();
