// Chooses the run whose filmstrip a report shows; all runs are in the page.
"use strict";
{
  const { images, runs } = JSON.parse(document.getElementById("films").textContent);
  const chosen = ["target", "strategy", "seed"].map((name) => document.getElementById(`film-${name}`));
  const words = { y: "yes", n: "no", u: "unsure" };

  chosen.forEach((select, part) => {
    for (const value of new Set(runs.map((run) => String(run[part])))) select.append(new Option(value));
    select.addEventListener("change", show);
  });
  document.querySelector(".film-choice").hidden = false;

  // Small ones with a decimal, as everywhere on the page.
  function percent(share) {
    return share < 0.0995 ? Number((100 * share).toFixed(1)) : Math.round(100 * share);
  }

  function show() {
    const run = runs.find((one) => chosen.every((select, part) => String(one[part]) === select.value));
    const [target, strategy, seed, opening, shown, values, recalls] = run;
    document.getElementById("film-told").textContent = `${target}, ${strategy}, seed ${seed}`;
    const strips = shown.map((round, n) => {
      const yes = [...values[n]].filter((letter) => letter === "y").length;
      return strip(`Round ${n + 1}`, `${yes} yes, recall ${percent(recalls[n])} %`, round, values[n]);
    });
    strips.unshift(strip("Opened with", "", opening, "y".repeat(opening.length)));
    document.getElementById("film").replaceChildren(...strips);
  }

  function strip(title, told, ids, letters) {
    const head = make("p", {}, make("strong", { textContent: title }), ` `, make("span", { className: "muted small", textContent: told }));
    const shots = ids.map((id, n) => {
      const [name, source] = images[id];
      const word = words[letters[n]];
      const picture = source ? make("img", { src: source, alt: name }) : make("span", { textContent: name });
      return make("li", { className: `shot ${word}`, title: name }, picture, make("span", { className: "hidden-text", textContent: word }));
    });
    return make("li", { className: "film-round" }, head, make("ul", { className: "shots" }, ...shots));
  }

  function make(tag, properties, ...inside) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...inside);
    return element;
  }
}
