// Uploads: files that are dropped or chosen go to the server in pieces, several files at a time, and
// go on after a lost connection (tus). The server knows what has arrived, so after a reload the same
// files are chosen again and only the rest is sent.

(() => {
  const page = document.getElementById("upload");
  if (!page || !window.tus) return;

  const AT_ONCE = 4;
  const SENT_AT_ONCE = 1_000_000; // bytes: such a file goes along with its announcement
  const PIECE = Number(page.dataset.piece);
  const ASKED_AT_ONCE = 5_000; // paths
  const SPEED_MS = 10_000; // looked back over
  // Seconds at first, for a moment's loss; then for half an hour before somebody must press a button.
  const DELAYS = [0, 500, 1_000, 2_000, ...Array(360).fill(5_000)];
  const IMAGES = /\.(jpe?g|jpe|jfif|png|webp|tiff?|gif|bmp|zip)$/i;
  const SKIPPED = /(^|\/)(\.[^/]*|__MACOSX|@eaDir|Thumbs\.db|ehthumbs\.db|desktop\.ini|\$RECYCLE\.BIN)(\/|$)/;
  const REFUSED_SHOWN = 200;

  const $ = (id) => document.getElementById(id);
  const waiting = []; // {path, file, known}
  const sending = new Map(); // path -> {upload, sent, item}
  const refused = [];
  const chosen = new Map(); // path -> {size, modified}, of everything chosen on this page
  const apart = new Set(); // folders that got a number
  let known = null; // what the server has: path -> {id, size, modified, arrived}
  let taking = Promise.resolve(); // what was chosen last is looked at after what was chosen before
  let doneCount = 0;
  let doneBytes = 0;
  let totalBytes = 0;
  let isPaused = false;
  let isUnsure = false; // paused because the labels file does not fit what was chosen
  let isSure = false; // somebody went on with it
  let isLost = false;
  let isLeaving = false;
  let history = []; // [time, bytes sent over the network so far]
  let networkBytes = 0;

  const number = (value) => Math.round(value).toString().replace(/\B(?=(\d{3})+$)/g, "\u202f");

  const size = (bytes) => {
    for (const [unit, one] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
      if (bytes >= 0.9995 * one) {
        const value = bytes / one;
        return `${value < 9.95 ? value.toFixed(1) : Math.round(value)} ${unit}`;
      }
    }
    return `${bytes} bytes`;
  };

  const duration = (seconds) => {
    if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
    if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
    const minutes = Math.round(seconds / 60);
    return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  };

  const files = (count) => `${number(count)} ${count === 1 ? "file" : "files"}`;

  // ---- What is chosen ---------------------------------------------------------------------------

  async function ask(address, paths) {
    const answer = await fetch(address, {
      method: paths ? "POST" : "GET",
      headers: { Accept: "application/json", "Content-Type": "application/json" },
      body: paths && JSON.stringify(paths),
    });
    if (!answer.ok) throw new Error(answer.status);
    return (await answer.json()).map((file) => [file.path, file]);
  }

  // What the collection holds of these paths.
  async function findHere(paths) {
    const here = [];
    for (let at = 0; at < paths.length; at += ASKED_AT_ONCE) {
      here.push(...(await ask(page.dataset.here, paths.slice(at, at + ASKED_AT_ONCE))));
    }
    return new Map(here);
  }

  // Times that earlier versions kept may be a millisecond off.
  const isSame = (before, file) =>
    before.size === file.size
    && Math.abs((before.modified ?? file.lastModified) - file.lastModified) <= 1;

  // Cards name their folders and photos alike. Where most of what has a name that is here already is
  // another photo, all of that first folder gets a number, so that no photo is taken for another and
  // two places stay two. A folder of which some photos were edited since is the same folder.
  async function setApart(found) {
    const folders = new Map(); // "" for photos in none
    for (const { path, file } of found) {
      const folder = path.includes("/") ? path.split("/")[0] : "";
      if (!folders.has(folder)) folders.set(folder, []);
      folders.get(folder).push({ inside: folder ? path.slice(folder.length + 1) : path, file });
    }
    const taken = new Set(folders.keys());
    const placed = [];
    for (const [folder, some] of folders) {
      for (let number = 1; ; number += 1) {
        const kept = number === 1 ? folder : folder ? `${folder} (${number})` : `(${number})`;
        if (number > 1 && taken.has(kept)) continue;
        const put = some.map(({ inside, file }) => ({ path: kept ? `${kept}/${inside}` : inside, file }));
        const here = await findHere(put.map(({ path }) => path));
        let same = 0;
        let other = 0;
        for (const { path, file } of put) {
          const before = chosen.get(path) ?? known.get(path) ?? here.get(path);
          if (before && isSame(before, file)) same += 1;
          else if (before) other += 1;
        }
        if (other > same) continue;
        placed.push(...put);
        taken.add(kept);
        if (kept !== folder) apart.add(kept);
        break;
      }
    }
    return placed;
  }

  function take(found) {
    taking = taking.then(() => takeNext(found.filter(({ path }) => !SKIPPED.test(path))));
  }

  async function takeNext(found) {
    let placed;
    try {
      known ??= new Map(await ask(page.dataset.files));
      placed = await setApart(found);
    } catch {
      say("The server does not answer. Nothing was sent yet; try again in a moment.");
      return;
    }
    for (const { path, file } of placed) {
      const before = chosen.get(path);
      if (before && isSame(before, file)) continue;
      if (before) {
        refuse(path, "Another file of this name was chosen before. Give one of them another name.");
      } else if (!IMAGES.test(path) && !file.type.startsWith("image/")) {
        refuse(path, "It is not an image or a zip file.");
      } else if (file.size === 0) {
        refuse(path, "It is empty.");
      } else {
        chosen.set(path, { size: file.size, modified: file.lastModified });
        totalBytes += file.size;
        const here = known.get(path);
        const isBegun = here && isSame(here, file); // else it was edited since
        if (isBegun && here.arrived) {
          doneCount += 1;
          doneBytes += file.size;
        } else {
          waiting.push({ path, file, known: isBegun ? here : null });
        }
      }
    }
    $("upload-before").hidden = true;
    tellApart();
    $("sending").hidden = chosen.size === 0;
    await compareLabels();
    checkRoom();
    pump();
    show();
  }

  // Said before anything is sent, which waits for what is missing or for somebody to go on with it.
  async function compareLabels() {
    if (!page.dataset.labels || !waiting.length) return;
    const told = $("upload-labels");
    try {
      const answer = await fetch(page.dataset.labels, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify([...chosen.keys()]),
      });
      if (!answer.ok) return;
      const said = await answer.json();
      told.textContent = said.length
        ? `${said.join(" ")} Choose what is missing too, or send these all the same: labels can be given again when the photos are here.`
        : "Each of these files has its line in the labels file.";
      told.hidden = false;
      if (said.length && !isSure && !sending.size) pause(true);
      else if (!said.length && isUnsure) pause(false);
      isUnsure = said.length > 0 && isPaused;
    } catch {
      // They are looked at again when the photos are here.
    }
  }

  // Said before hours of sending, which would end where the quota does. People may still resume.
  function checkRoom() {
    const toSend = waiting.reduce((sum, { path, file }) => sum + file.size - announced(path), 0);
    const left = Number($("used").dataset.quota) - usedBytes;
    if (isPaused || toSend <= left) return;
    pause(true);
    say(
      `These photos take ${size(toSend)}, and of what one person may upload ${size(Math.max(0, left))} are left. `
        + "Nothing more was sent. Have the setting RAREFIND_UPLOAD_QUOTA_GB raised, or resume: what fits is sent.",
    );
  }

  // Of a file what counts for the quota already.
  const announced = (path) => counted.get(path) ?? known.get(path)?.size ?? 0;

  async function walk(entry, found) {
    if (entry.isFile) {
      const file = await new Promise((keep, fail) => entry.file(keep, fail));
      found.push({ path: entry.fullPath.replace(/^\//, ""), file });
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      // A reader hands over a hundred at a time, until it has none.
      const some = await new Promise((keep, fail) => reader.readEntries(keep, fail));
      if (!some.length) return;
      for (const inner of some) await walk(inner, found);
    }
  }

  async function drop(event) {
    event.preventDefault();
    $("drop").classList.remove("is-over");
    const dropped = [...event.dataTransfer.items]
      .filter((item) => item.kind === "file")
      .map((item) => ({ entry: item.webkitGetAsEntry(), file: item.getAsFile() }));
    const found = [];
    for (const { entry, file } of dropped) {
      if (!entry) {
        if (file) found.push({ path: file.name, file });
        continue;
      }
      try {
        await walk(entry, found);
      } catch {
        refuse(entry.fullPath.replace(/^\//, ""), "Your browser can't read it.");
      }
    }
    take(found);
  }

  // ---- Sending ----------------------------------------------------------------------------------

  function pump() {
    while (!isPaused && sending.size < AT_ONCE && waiting.length) send(waiting.shift());
    if (!isPaused && !sending.size && !waiting.length && doneCount) end();
  }

  function send(item) {
    const { path, file } = item;
    const entry = { sent: 0, item };
    entry.upload = new tus.Upload(file, {
      endpoint: page.dataset.files,
      uploadUrl: item.known ? `${page.dataset.files}/${item.known.id}` : null,
      metadata: { path, modified: String(file.lastModified) },
      headers: { Accept: "application/json" },
      chunkSize: PIECE,
      uploadDataDuringCreation: file.size <= SENT_AT_ONCE,
      storeFingerprintForResuming: false,
      retryDelays: DELAYS,
      onShouldRetry: (error) => {
        const status = statusOf(error);
        isLost = status === 0;
        return status === 0 || [409, 423, 429].includes(status) || (status >= 500 && status !== 507);
      },
      onProgress: (sent) => {
        if (sent > entry.sent) {
          networkBytes += sent - entry.sent;
          isLost = false;
        }
        entry.sent = sent;
      },
      onSuccess: () => {
        sending.delete(path);
        countUsed(path, file.size);
        doneCount += 1;
        doneBytes += file.size;
        isLost = false;
        pump();
      },
      onError: (error) => fail(entry, error),
    });
    sending.set(path, entry);
    entry.upload.start();
  }

  function fail(entry, error) {
    const { path } = entry.item;
    const status = statusOf(error);
    const sentence = sentenceOf(error);
    sending.delete(path);
    if (status === 422 || (status === 404 && entry.item.known)) {
      chosen.delete(path);
      totalBytes -= entry.item.file.size;
      refuse(path, sentence || "The server refused it.");
      pump();
      return;
    }
    // The same would happen to all others: people must act first.
    waiting.unshift(entry.item);
    pause(true);
    if (status === 401) say("You are no longer signed in. Sign in again in another tab, then resume.");
    else if (status === 0) say("The connection is lost. What was sent is kept; resume when it is back.");
    else say(sentence || "The server could not take it. What was sent is kept; try to resume.");
  }

  function statusOf(error) {
    return error.originalResponse ? error.originalResponse.getStatus() : 0;
  }

  function sentenceOf(error) {
    try {
      return JSON.parse(error.originalResponse.getBody()).detail;
    } catch {
      return "";
    }
  }

  function pause(isAsked) {
    isPaused = isAsked;
    if (isPaused) {
      for (const entry of sending.values()) {
        entry.upload.abort();
        if (entry.upload.url) entry.item.known = { id: entry.upload.url.split("/").pop() };
        waiting.unshift(entry.item);
      }
      sending.clear();
      history = [];
    } else {
      $("upload-problem").hidden = true;
      pump();
    }
    show();
  }

  function end() {
    if (isLeaving) return;
    show();
    if (refused.length) return; // people should see them first
    isLeaving = true;
    $("finish").requestSubmit();
  }

  // ---- What people see --------------------------------------------------------------------------

  // Of the quota: what the server knew of when the page was drawn is in its figure already.
  let usedBytes = Number($("used").dataset.bytes);
  const counted = new Map(); // path -> size

  function countUsed(path, bytes) {
    usedBytes += bytes - announced(path);
    counted.set(path, bytes);
    $("used").textContent = size(usedBytes);
  }

  function say(sentence) {
    const notice = $("upload-problem");
    notice.querySelector("div").textContent = sentence;
    notice.hidden = false;
  }

  function tellApart() {
    const told = $("upload-apart");
    const some = [...apart].slice(0, 3).map((folder) => `“${folder}”`).join(", ");
    const more = apart.size > 3 ? ` and ${number(apart.size - 3)} more` : "";
    told.textContent = `Other photos of the same names are here already: these are kept beside them, in ${apart.size === 1 ? "the folder" : "the folders"} ${some}${more}.`;
    told.hidden = apart.size === 0;
  }

  function refuse(path, reason) {
    refused.push(path);
    $("refused").hidden = false;
    $("refused").open = true;
    $("refused-title").textContent = `${files(refused.length)} not taken`;
    if (refused.length > REFUSED_SHOWN) return;
    const line = document.createElement("li");
    const name = document.createElement("code");
    name.textContent = path;
    line.append(name, ` ${reason}`);
    $("refused").querySelector("ul").append(line);
  }

  function show() {
    let sent = doneBytes;
    for (const entry of sending.values()) sent += entry.sent;
    const isDone = chosen.size > 0 && doneCount === chosen.size;
    const now = performance.now();
    if (isLost) history = []; // of a line that is gone there is no speed
    history.push([now, networkBytes]);
    history = history.filter(([time]) => now - time <= SPEED_MS);
    const [first] = history;
    const seconds = (now - first[0]) / 1000;
    const speed = seconds >= 2 && !isPaused && !isDone ? (networkBytes - first[1]) / seconds : 0;

    $("sending-title").textContent = isDone
      ? "Everything has arrived"
      : isPaused
        ? "Paused"
        : isLost
          ? "The connection is lost; trying again"
          : "Sending";
    $("sending-progress").max = totalBytes || 1;
    $("sending-progress").value = Math.min(sent, totalBytes);
    $("sending-files").textContent = `${number(doneCount)} of ${files(chosen.size)}`;
    $("sending-bytes").textContent = `${size(sent)} of ${size(totalBytes)}`;
    $("sending-speed").textContent = speed ? `${size(speed)} a second` : "";
    $("sending-left").textContent = speed
      ? `about ${duration((totalBytes - sent) / speed)} left`
      : "";
    $("sending-hint").hidden = isDone;
    $("pause").hidden = isDone;
    $("pause").textContent = isPaused ? "Resume" : "Pause";
    const isIdle = isPaused || isDone || !chosen.size;
    if (doneCount) {
      $("finish").hidden = !isIdle;
      $("finish-words").textContent = `Import ${files(doneCount)}`;
      $("finish").querySelector("button").classList.toggle("primary", isDone);
    } else if (!isIdle) {
      $("finish").hidden = true;
    }
  }

  for (const input of [$("choose-files"), $("choose-folder")]) {
    const takeChosen = () => {
      if (!input.files.length) return;
      take([...input.files].map((file) => ({ path: file.webkitRelativePath || file.name, file })));
      input.value = "";
    };
    input.addEventListener("change", takeChosen);
    takeChosen(); // who is quicker than this script has chosen already
  }
  $("choose-folder-button").hidden = !("webkitdirectory" in $("choose-folder"))
    || window.matchMedia("(pointer: coarse)").matches; // phones have no folders to choose
  for (const name of ["dragenter", "dragover"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      $("drop").classList.add("is-over");
    });
  }
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) $("drop").classList.remove("is-over");
  });
  document.addEventListener("drop", drop);
  $("pause").addEventListener("click", () => {
    isSure ||= isUnsure;
    pause(!isPaused);
  });
  for (const form of [$("finish"), $("cancel")]) {
    form.addEventListener("submit", () => {
      isLeaving = true;
      if (form === $("cancel")) pause(true);
    });
  }
  window.addEventListener("beforeunload", (event) => {
    if (!isLeaving && (sending.size || waiting.length)) event.preventDefault();
  });
  setInterval(() => {
    if (sending.size || isPaused) show();
  }, 500);
})();
