// What every page does: say when the server is away, and take old problems off the page.
(() => {
  const away =
    '<div class="notice bad"><div><strong>The server does not answer</strong>' +
    "<p>What you did last may not be saved. It may be starting again: try once more in a moment.</p></div></div>";

  document.addEventListener("htmx:sendError", () => {
    problem().innerHTML = away;
  });

  document.addEventListener("htmx:afterRequest", (event) => {
    if (event.detail.successful) problem().replaceChildren();
  });

  // A picture that the server has no hands for just now is asked for again, a few times.
  const AGAIN_MS = [3000, 6000, 12000];
  const tries = new Map(); // by address
  document.addEventListener("error", (event) => askAgain(event.target), true);
  for (const picture of document.images) {
    if (picture.complete && picture.currentSrc && !picture.naturalWidth) askAgain(picture);
  }

  function askAgain(picture) {
    if (!(picture instanceof HTMLImageElement)) return;
    const { src } = picture;
    const tried = tries.get(src) ?? 0;
    if (tried === AGAIN_MS.length) return;
    tries.set(src, tried + 1);
    setTimeout(() => {
      if (picture.src === src) picture.src = src;
    }, AGAIN_MS[tried]);
  }

  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-dismiss]")) event.target.closest(".notice").remove();
  });

  // A form whose answer is shown once is not sent again by a second press: its answer would be lost.
  const ANSWER_MS = 5000;
  let sentAt = -Infinity;
  document.addEventListener("submit", (event) => {
    if (!event.target.matches("[data-once]")) return;
    if (event.timeStamp - sentAt < ANSWER_MS) return event.preventDefault();
    sentAt = event.timeStamp;
  });

  // Nor by a reload of that answer: without the secret it is the list, at the list's own address.
  const answer = document.querySelector("[data-list]");
  if (answer) history.replaceState(null, "", answer.dataset.list);

  // What is shown once can be copied, where the browser lets a page do that: on a safe connection.
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.hidden = !navigator.clipboard;
    button.addEventListener("click", async () => {
      const secret = document.getElementById(button.dataset.copy);
      let said = "Copied";
      try {
        await navigator.clipboard.writeText(secret.textContent);
      } catch {
        getSelection().selectAllChildren(secret);
        said = "Your browser refuses: copy what is selected";
      }
      button.querySelector("span").textContent = said;
    });
  }

  // An open menu closes when something else is clicked, or by Escape.
  document.addEventListener("click", (event) => {
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      menu.open = false;
      menu.querySelector("summary").focus();
      event.stopImmediatePropagation();
    }
  });

  function problem() {
    return document.getElementById("problem");
  }
})();
