// The large view: one image as big as the window, with zoom, pan, light, and the answer keys.
(() => {
  const { hidePeople, keyOf, isPlain, isTyping, showOver } = window.rarefind;
  const dialog = document.getElementById("large");
  const stage = dialog.querySelector(".large-stage");
  const picture = dialog.querySelector(".large-picture");
  const boxes = dialog.querySelector(".large-boxes");
  const details = document.getElementById("large-details");
  const hint = dialog.querySelector(".swipe-hint");
  const lights = [...dialog.querySelectorAll(".large-light input")];

  const LARGE_PX = 1280; // long side of the /large rendition
  const MOST_ZOOM = 16;
  const SWIPE_PX = 70;
  const DETAILS_DELAY_MS = 120; // while leafing quickly nothing is fetched

  let view = null; // what openLarge was given
  let at = 0; // place of the image in view.cards()
  let shown = null; // its card
  let scale = 1; // CSS pixels per pixel of the image
  let x = 0;
  let y = 0;
  let whole = true; // the zoom follows the window
  let asking = null;
  let going = null; // "tag" or "note": the field to go to when the details are there

  Object.assign(window.rarefind, { openLarge, refreshLarge });

  // `cards()` lists the cards that can be leafed through, `answerOf(card)` and
  // `answer(card, value)` read and give answers, `undo()` and `redo()` take steps,
  // `detailsUrl(card)` says why it is shown, `onClose(card)` gets the image seen last, or null
  // when the last one was answered. With `remark`, "tag" or "note", that field is in focus at once.
  function openLarge(given, card, remark = null) {
    view = given;
    going = remark;
    show(view.cards().indexOf(card));
    if (!dialog.open) showOver(dialog);
    place();
    stage.focus();
  }

  // After the grid changed: the same image if it is still there, else back to the grid.
  function refreshLarge() {
    if (!dialog.open) return;
    const card = view.cards().find((one) => one.dataset.image === shown.dataset.image);
    if (!card) return dialog.close();
    shown = card;
    at = view.cards().indexOf(card);
    showAnswer();
  }

  function show(index) {
    const cards = view.cards();
    if (index < 0 || index >= cards.length) return;
    details.inert = true; // nobody is to write on the image before
    at = index;
    shown = cards[index];
    const { image, name, width, height } = shown.dataset;
    picture.style.width = `${width}px`;
    picture.style.height = `${height}px`;
    picture.alt = name;
    boxes.replaceChildren();
    const drawn = shown.querySelector("svg.boxes");
    if (drawn) boxes.append(drawn.cloneNode(true));
    whole = true;
    place();
    load(`/images/${image}/small`);
    sharpen();
    const end = name.lastIndexOf("/") + 1;
    dialog.querySelector("[data-large-folder]").textContent = name.slice(0, end);
    dialog.querySelector("[data-large-name]").textContent = name.slice(end);
    dialog.querySelector(".file-line").title = name;
    dialog.querySelector("[data-large-place]").textContent = `${at + 1} of ${cards.length}`;
    dialog.querySelector('[data-large="before"]').disabled = at === 0;
    dialog.querySelector('[data-large="after"]').disabled = at === cards.length - 1;
    showAnswer();
    explain();
    const next = cards[at + 1];
    if (next) new Image().src = `/images/${next.dataset.image}/large`;
  }

  function showAnswer() {
    const value = view.answerOf(shown);
    dialog.dataset.answer = value || "";
    dialog.querySelector("[data-large-answer]").textContent = `: ${value || "not answered"}`;
    for (const button of dialog.querySelectorAll("[data-answer]")) {
      button.setAttribute("aria-pressed", String(button.dataset.answer === value));
    }
  }

  function answer(value) {
    view.answer(shown, value);
    showAnswer();
    if (at + 1 < view.cards().length) return show(at + 1);
    const { onClose } = view;
    shown = null;
    dialog.close();
    onClose(null);
  }

  // ---- The picture: small at once, then large, then the file itself when looked at closely -----

  function load(url) {
    picture.dataset.url = url;
    picture.src = url;
  }

  async function sharpen() {
    const { image, width, height } = shown.dataset;
    const wanted = scale * devicePixelRatio * Math.max(width, height);
    const finer = wanted > LARGE_PX && Math.max(width, height) > LARGE_PX;
    const url = `/images/${image}/${finer ? "original" : "large"}`;
    if (picture.dataset.url === url || picture.dataset.url?.endsWith("/original")) return;
    const loader = new Image();
    loader.src = url;
    try {
      await loader.decode();
    } catch {
      return; // a format that browsers don't show; what is there stays
    }
    if (shown?.dataset.image === image) load(url);
  }

  function fit() {
    const { width, height } = shown.dataset;
    return Math.min(stage.clientWidth / width, stage.clientHeight / height, MOST_ZOOM);
  }

  function place() {
    const { width, height } = shown.dataset;
    if (whole) scale = fit();
    const [across, down] = [width * scale, height * scale];
    x = within(x, stage.clientWidth - across);
    y = within(y, stage.clientHeight - down);
    picture.style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
    boxes.style.transform = `translate(${x}px, ${y}px)`; // not scaled: lines stay as thick
    boxes.style.width = `${across}px`;
    boxes.style.height = `${down}px`;
    picture.style.imageRendering = scale * devicePixelRatio >= 4 && !whole ? "pixelated" : "auto";
    const percent = Math.round(100 * scale * devicePixelRatio);
    dialog.querySelector("[data-large-zoom]").textContent = `${percent} %`;
  }

  // Centred when there is room to spare, else without a gap at either edge.
  function within(offset, room) {
    return room >= 0 ? room / 2 : Math.min(0, Math.max(room, offset));
  }

  function zoom(wanted, centreX = stage.clientWidth / 2, centreY = stage.clientHeight / 2) {
    const next = Math.min(Math.max(wanted, smallest()), MOST_ZOOM);
    x = centreX - ((centreX - x) * next) / scale;
    y = centreY - ((centreY - y) * next) / scale;
    scale = next;
    whole = next === fit();
    place();
    sharpen();
  }

  // The whole image, or its own size where the window has room for more.
  function smallest() {
    return Math.min(fit(), 1 / devicePixelRatio);
  }

  function isAllInSight() {
    return scale <= fit();
  }

  function pixelForPixel() {
    zoom(1 / devicePixelRatio);
  }

  function zoomToWhole() {
    whole = true;
    place();
  }

  function light() {
    const [brightness, contrast] = lights.map((slider) => slider.value);
    picture.style.filter =
      brightness === "100" && contrast === "100"
        ? ""
        : `brightness(${brightness}%) contrast(${contrast}%)`;
  }

  // ---- Why it is shown -------------------------------------------------------------------------

  async function explain() {
    asking?.abort();
    asking = new AbortController();
    const { signal } = asking;
    await new Promise((resolve) => setTimeout(resolve, DETAILS_DELAY_MS));
    if (signal.aborted) return;
    try {
      const reply = await fetch(view.detailsUrl(shown), {
        headers: { "HX-Request": "true", Accept: "text/html" },
        signal,
      });
      const html = await reply.text();
      if (signal.aborted) return;
      details.innerHTML = html;
      htmx.process(details); // its tags and notes change in place
      details.inert = false;
      if (going) remark(going);
    } catch {
      if (!signal.aborted) details.textContent = "The server does not answer just now.";
    }
  }

  // To the field for a tag, or to a new note; on a phone the side must be opened for that.
  function remark(kind) {
    going = kind;
    const field = details.querySelector(`[data-remark="${kind}"]`);
    // Still to come, about to be replaced by the answer to what was sent, or one may only look.
    if (!field || details.inert || details.querySelector(".htmx-request")) return;
    going = null;
    dialog.classList.add("with-details");
    dialog.querySelector('[data-large="details"]').setAttribute("aria-expanded", "true");
    const fold = field.closest("details");
    if (fold) fold.open = true;
    const target = fold?.querySelector("textarea") ?? field;
    target.focus({ preventScroll: true });
    target.scrollIntoView({ block: "center" });
  }

  details.addEventListener("htmx:afterSettle", () => {
    if (going) remark(going);
  });

  // ---- Keys, buttons, wheel, fingers -----------------------------------------------------------

  dialog.addEventListener("keydown", (event) => {
    if (isTyping(event.target)) {
      if (event.key !== "Escape") return;
      event.preventDefault(); // else the dialog closes
      event.stopPropagation();
      return stage.focus();
    }
    if (!isPlain(event)) return;
    const onSlider = event.target.matches("input");
    const onButton = event.target.matches("button, a");
    const act = {
      y: () => answer("yes"),
      n: () => answer("no"),
      u: () => answer("unsure"),
      f: () => dialog.close(),
      t: () => remark("tag"),
      c: () => remark("note"),
      h: () => hidePeople(shown),
      z: () => (event.shiftKey ? view.redo() : view.undo()),
      "+": () => zoom(scale * 1.4),
      "=": () => zoom(scale * 1.4),
      "-": () => zoom(scale / 1.4),
      1: pixelForPixel,
      0: zoomToWhole,
      ...(!onSlider && { ArrowLeft: () => show(at - 1), ArrowRight: () => show(at + 1) }),
      ...(!onSlider &&
        !onButton && {
          " ": () => {
            view.answer(shown, view.answerOf(shown) === "yes" ? null : "yes");
            showAnswer();
          },
        }),
    }[keyOf(event)];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  });

  dialog.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.answer) return answer(button.dataset.answer);
    const act = {
      before: () => show(at - 1),
      after: () => show(at + 1),
      close: () => dialog.close(),
      closer: () => zoom(scale * 1.4),
      further: () => zoom(scale / 1.4),
      pixels: pixelForPixel,
      whole: zoomToWhole,
      details: () => {
        const open = dialog.classList.toggle("with-details");
        button.setAttribute("aria-expanded", String(open));
      },
      "plain-light": () => {
        for (const slider of lights) slider.value = 100;
        light();
      },
    }[button.dataset.large];
    act?.();
  });

  dialog.addEventListener("close", () => {
    asking?.abort();
    const card = shown;
    shown = null;
    if (card) view.onClose(card);
  });

  for (const slider of lights) slider.addEventListener("input", light);

  stage.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const box = stage.getBoundingClientRect();
      const lines = event.deltaMode === 1 ? 18 : 1;
      const factor = Math.exp((-event.deltaY * lines) / 400);
      zoom(scale * factor, event.clientX - box.left, event.clientY - box.top);
    },
    { passive: false },
  );

  stage.addEventListener("dblclick", (event) => {
    if (event.target.closest("button")) return;
    if (!whole) return zoomToWhole();
    const box = stage.getBoundingClientRect();
    const wanted = Math.max(1 / devicePixelRatio, 2.5 * scale);
    zoom(wanted, event.clientX - box.left, event.clientY - box.top);
  });

  const fingers = new Map(); // pointerId -> latest event
  let swipe = null; // {x, y} where a swipe began

  stage.addEventListener("pointerdown", (event) => {
    if (event.target.closest("button") || event.button > 0) return;
    stage.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, event);
    swipe = event.pointerType !== "mouse" && isAllInSight() && fingers.size === 1 ? event : null;
    stage.classList.toggle("panning", !swipe);
  });

  stage.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const [other] = [...fingers.values()].filter((one) => one.pointerId !== event.pointerId);
    fingers.set(event.pointerId, event);
    if (other) {
      const box = stage.getBoundingClientRect();
      const apart = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
      const centreX = (event.clientX + other.clientX) / 2 - box.left;
      const centreY = (event.clientY + other.clientY) / 2 - box.top;
      zoom((scale * apart(event)) / Math.max(apart(before), 1), centreX, centreY);
    } else if (swipe) {
      const value = swiped(event);
      hint.textContent = { yes: "Yes", no: "No", unsure: "Unsure" }[value] || "";
    } else {
      x += event.clientX - before.clientX;
      y += event.clientY - before.clientY;
      place();
    }
  });

  for (const kind of ["pointerup", "pointercancel"]) {
    stage.addEventListener(kind, (event) => {
      fingers.delete(event.pointerId);
      stage.classList.remove("panning");
      hint.textContent = "";
      const value = kind === "pointerup" && swipe && swiped(event);
      swipe = null;
      if (value) answer(value);
    });
  }

  function swiped(event) {
    const across = event.clientX - swipe.clientX;
    const down = event.clientY - swipe.clientY;
    if (Math.abs(across) > SWIPE_PX && Math.abs(across) > 2 * Math.abs(down)) {
      return across > 0 ? "yes" : "no";
    }
    return -down > SWIPE_PX && -down > 2 * Math.abs(across) ? "unsure" : null;
  }

  new ResizeObserver(() => {
    if (dialog.open && shown) place();
  }).observe(stage);
})();
