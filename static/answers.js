// Saves answers in the order they were given. What the server has not confirmed yet stays in this
// tab's storage, so that neither a reload nor a server that is away for a while loses an answer.
(() => {
  const FIRST_WAIT_MS = 1000;
  const LONGEST_WAIT_MS = 15000;
  const TIMEOUT_MS = 15000;

  Object.assign(window.rarefind, { openOutbox, postJson, newGestureKey });

  // `url` takes gestures as JSON; `onSaved(gesture, reply)` hears of each one saved,
  // `onRefused(sentence, gesture)` of each that can't be, and `onTrouble(sentence or null)` of
  // waiting and its end.
  function openOutbox({ url, onSaved, onTrouble, onRefused }) {
    const storageKey = `rarefind unsaved ${url}`;
    let queue = JSON.parse(sessionStorage.getItem(storageKey) || "[]");
    let sending = null;
    let wake = () => {}; // ends a pause

    function add(gesture) {
      queue.push({ gesture_key: newGestureKey(), ...gesture });
      keep();
      return settle();
    }

    // Resolves when everything is saved or refused.
    function settle() {
      sending ??= sendAll().finally(() => (sending = null));
      return sending;
    }

    async function sendAll() {
      let wait = FIRST_WAIT_MS;
      while (queue.length) {
        const [gesture] = queue;
        const reply = await postJson(url, gesture);
        if (!queue.includes(gesture)) {
          wait = FIRST_WAIT_MS; // saved otherwise, so this reply says nothing new
          onTrouble(null);
        } else if (reply.ok) {
          queue.shift();
          keep();
          wait = FIRST_WAIT_MS;
          onTrouble(null);
          onSaved(gesture, reply.body);
        } else if (reply.final) {
          queue.shift(); // this one alone: what was answered after it may well do
          keep();
          onTrouble(null);
          onRefused(reply.sentence, gesture);
        } else {
          onTrouble(`Not saved yet: trying again. ${reply.sentence}`);
          await pause(wait, (end) => (wake = end));
          wait = Math.min(2 * wait, LONGEST_WAIT_MS);
        }
      }
    }

    // The form of a round was saved, and all that was answered in it.
    function drop(roundId) {
      queue = queue.filter((gesture) => gesture.round_id !== roundId);
      keep();
      onTrouble(null);
      wake();
    }

    function keep() {
      if (queue.length) sessionStorage.setItem(storageKey, JSON.stringify(queue));
      else sessionStorage.removeItem(storageKey);
    }

    window.addEventListener("beforeunload", (event) => {
      if (queue.length) event.preventDefault();
    });
    return { add, settle, drop, waiting: () => [...queue] };
  }

  // {ok, body} or {ok: false, final: no use trying again, sentence}.
  async function postJson(url, body) {
    let reply;
    try {
      reply = await fetch(url, {
        method: "POST",
        headers: { "Content-Type": "application/json", Accept: "application/json" },
        body: JSON.stringify(body),
        signal: AbortSignal.timeout(TIMEOUT_MS),
      });
      if (reply.ok) return { ok: true, body: await reply.json() };
    } catch {
      return { ok: false, final: false, sentence: "The server does not answer." };
    }
    const error = await reply.json().catch(() => ({}));
    const sentence = error.detail || `The server answered with error ${reply.status}.`;
    // Signing in again in another tab, or a server that comes back, mends these.
    const final = reply.status < 500 && ![401, 408, 429].includes(reply.status);
    return { ok: false, final, sentence };
  }

  function newGestureKey() {
    const bytes = crypto.getRandomValues(new Uint8Array(16)); // randomUUID needs https
    return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  function pause(milliseconds, lendEnd) {
    return new Promise((resolve) => {
      const timer = setTimeout(done, milliseconds);
      lendEnd(done);
      window.addEventListener("online", done);
      function done() {
        clearTimeout(timer);
        window.removeEventListener("online", done);
        resolve();
      }
    });
  }
})();
