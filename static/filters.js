// The map of a filter: a box drawn on it fills in its four sides, and the sides draw the box.
(() => {
  for (const map of document.querySelectorAll("[data-map]")) {
    const svg = map.querySelector("svg");
    const box = map.querySelector("[data-map-box]");
    const sides = Object.fromEntries(
      [...map.querySelectorAll("[data-map-side]")].map((field) => [field.name, field]),
    );
    const ends = Object.fromEntries(
      ["south", "west", "north", "east"].map((side) => [side, Number(map.dataset[side])]),
    );
    const { width, height } = svg.viewBox.baseVal;
    const digits = Math.max(2, Math.ceil(-Math.log10((ends.north - ends.south) / 500)));
    let start = null;

    const xOf = (longitude) => ((longitude - ends.west) / (ends.east - ends.west)) * width;
    const yOf = (latitude) => ((ends.north - latitude) / (ends.north - ends.south)) * height;

    function draw() {
      const filled = Object.values(sides).every((field) => field.value !== "");
      box.toggleAttribute("hidden", !filled);
      if (!filled) return;
      const west = xOf(Number(sides.west.value));
      const east = xOf(Number(sides.east.value));
      const north = yOf(Number(sides.north.value));
      const south = yOf(Number(sides.south.value));
      box.setAttribute("x", west);
      box.setAttribute("y", north);
      box.setAttribute("width", Math.max(0, east - west));
      box.setAttribute("height", Math.max(0, south - north));
    }

    function find(event) {
      const frame = svg.getBoundingClientRect();
      const across = Math.min(1, Math.max(0, (event.clientX - frame.left) / frame.width));
      const down = Math.min(1, Math.max(0, (event.clientY - frame.top) / frame.height));
      return {
        longitude: ends.west + across * (ends.east - ends.west),
        latitude: ends.north - down * (ends.north - ends.south),
      };
    }

    svg.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      event.preventDefault();
      svg.setPointerCapture(event.pointerId);
      start = find(event);
    });
    svg.addEventListener("pointermove", (event) => {
      if (!start) return;
      const end = find(event);
      sides.south.value = Math.min(start.latitude, end.latitude).toFixed(digits);
      sides.north.value = Math.max(start.latitude, end.latitude).toFixed(digits);
      sides.west.value = Math.min(start.longitude, end.longitude).toFixed(digits);
      sides.east.value = Math.max(start.longitude, end.longitude).toFixed(digits);
      draw();
    });
    for (const end of ["pointerup", "pointercancel"]) {
      svg.addEventListener(end, () => {
        start = null;
      });
    }
    for (const field of Object.values(sides)) field.addEventListener("input", draw);
    map.querySelector("[data-map-clear]").addEventListener("click", () => {
      for (const field of Object.values(sides)) field.value = "";
      draw();
    });
    draw();
  }

  // What is not filled in says nothing: it stays out of the address.
  for (const form of document.querySelectorAll("form.filter-form[method=get]")) {
    form.addEventListener("formdata", (event) => {
      for (const [name, value] of [...event.formData]) {
        if (value === "") event.formData.delete(name);
      }
    });
  }
})();
