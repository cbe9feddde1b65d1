// Draws the plots of the dashboard from the numbers in data-plot, as SVG: when the page and each
// later part arrive, and again when the colours change. The table beneath holds the same numbers.
"use strict";
{
  const charts = new Map();
  const kinds = { bars, interval, histogram, calibration, map, dates, clock, places, deployments, against, hours };
  const mostPictures = 40; // on the map at once
  const mostDeployments = 20; // drawn; the table has the others
  const peek = document.getElementById("peek"); // only where there is a map
  const still = { animation: false, textStyle: { fontFamily: "inherit" } };

  drawAll();
  document.addEventListener("htmx:afterSettle", () => {
    drawAll();
    // A field that was refused stays in sight while the parts above it arrive.
    document.querySelector("[aria-invalid]:focus")?.scrollIntoView({ block: "center" });
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  window.matchMedia("print").addEventListener("change", redraw);
  new MutationObserver(redraw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  window.addEventListener("scroll", () => peek && (peek.hidden = true), { passive: true });

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-svg], [data-zoom]");
    if (!button) return;
    const box = button.closest("figure").querySelector("[data-plot]");
    if (button.dataset.zoom) return zoom(box, charts.get(box), Number(button.dataset.zoom));
    const link = document.createElement("a");
    const svg = new Blob([charts.get(box).renderToSVGString()], { type: "image/svg+xml" });
    link.href = URL.createObjectURL(svg);
    link.download = `${JSON.parse(box.dataset.plot).name}.svg`;
    link.click();
    URL.revokeObjectURL(link.href);
  });

  // The question on screen is marked in the list of questions.
  const links = document.querySelectorAll(".contents a");
  const seen = new IntersectionObserver(
    (entries) => {
      for (const { target } of entries.filter((entry) => entry.isIntersecting)) {
        for (const link of links) {
          if (link.hash === `#${target.id}`) link.setAttribute("aria-current", "true");
          else link.removeAttribute("aria-current");
        }
      }
    },
    { rootMargin: "-25% 0px -70%" },
  );
  for (const part of document.querySelectorAll(".part")) seen.observe(part);
  document.querySelector(".contents.narrow")?.addEventListener("click", (event) => {
    if (event.target.closest("a")) event.currentTarget.open = false;
  });

  function drawAll() {
    for (const box of document.querySelectorAll("[data-plot]")) {
      if (charts.has(box)) continue;
      fitHeight(box);
      const chart = echarts.init(box, null, { renderer: "svg" });
      charts.set(box, chart);
      new ResizeObserver(() => {
        chart.resize();
        // On the ground a kilometre stays as long up as across. A map stays as near as it was.
        if (!box.classList.contains("map")) draw(box, chart);
      }).observe(box);
      draw(box, chart);
      if (box.classList.contains("map")) followPointer(box, chart);
    }
  }

  function redraw() {
    for (const [box, chart] of charts) draw(box, chart);
  }

  function draw(box, chart) {
    const plot = JSON.parse(box.dataset.plot);
    const option = kinds[plot.kind](plot, colours(), box);
    // On the narrowest screens a legend takes two lines.
    if (box.clientWidth < 300 && option.grid?.top === 36) option.grid.top = 58;
    chart.setOption({ ...still, ...option }, true);
  }

  function fitHeight(box) {
    if (!box.classList.contains("deployments")) return;
    const rows = JSON.parse(box.dataset.plot).rows.length;
    box.style.height = `${72 + 24 * Math.min(rows, mostDeployments)}px`;
  }

  function percent(share) {
    // Small ones with a decimal, as everywhere on the page.
    return `${share < 0.0995 ? Number((100 * share).toFixed(1)) : Math.round(100 * share)} %`;
  }

  // 8725 as 8 725, with a thin space, as everywhere on the page.
  function spaced(value) {
    if (typeof value !== "number") return value;
    return value.toLocaleString("en", { maximumFractionDigits: 4 }).replaceAll(",", "\u202f");
  }

  // How sure, and from where to where; nothing where both ends are the same.
  function between(level, low, high) {
    return low === high ? "" : ` (${Math.round(100 * level)} % interval: ${low} to ${high})`;
  }

  // Each group in shares of itself, so that few finds can be compared with many images.
  function shares(rows, part) {
    const total = rows.reduce((sum, row) => sum + row[part], 0) || 1;
    return rows.map((row) => row[part] / total);
  }

  function tell(row, first) {
    const [found, likely, every] = row.slice(-3);
    return `${first}: ${spaced(found)} found, ${spaced(likely)} likely, ${spaced(every)} images in all`;
  }

  function colours() {
    const style = getComputedStyle(document.documentElement);
    const scratch = document.createElement("i");
    document.body.append(scratch);
    const found = {};
    for (const name of ["yes", "no", "no-soft", "unsure", "unsure-soft", "accent", "text", "muted", "line"]) {
      scratch.style.color = style.getPropertyValue(`--${name}`);
      found[name] = getComputedStyle(scratch).color;
    }
    scratch.remove();
    return found;
  }

  function frame(c, names, { category } = {}) {
    // Numbers that would run together are left out.
    const label = { color: c.muted, formatter: spaced, hideOverlap: true, textMargin: [0, 5] };
    const axis = {
      nameLocation: "middle",
      nameTextStyle: { color: c.muted },
      axisLabel: label,
      axisLine: { lineStyle: { color: c.line } },
      splitLine: { lineStyle: { color: c.line } },
    };
    return {
      grid: { left: 68, right: 12, top: 36, bottom: 53 },
      legend: { top: 0, left: 0, textStyle: { color: c.text }, itemHeight: 10, itemWidth: 16, itemGap: 20 },
      tooltip: { trigger: "axis", renderMode: "richText", confine: true, valueFormatter: spaced },
      // Low enough for the first number to keep clear of the other axis' lowest.
      xAxis: { ...axis, type: category ? "category" : "value", name: names[0], nameGap: 37, axisLabel: { ...label, margin: 16 }, splitLine: { show: false } },
      // Room for numbers as long as 100 % or 10 000.
      yAxis: { ...axis, type: "value", name: names[1], nameGap: 52 },
    };
  }

  // The legend's mark of a series that is drawn as an area: as pale, and without a line.
  function area(name, color, opacity) {
    return { name, icon: "roundRect", itemStyle: { color, opacity } };
  }

  // Which of the words under bars are shown: so many that they keep clear of each other; round numbers.
  function sparse(box, words) {
    const wide = 7 * Math.max(...words.map((word) => `${word}`.length)) + 10;
    const round = [1, 10, 100, 1000].flatMap((ten) => [ten, 2 * ten, 5 * ten]);
    return (place, word) => {
      const least = Math.ceil((wide * words.length) / Math.max(box.clientWidth - 80, 1));
      if (typeof words[0] !== "number") return place % least === 0;
      return Number(word) % round.find((step) => step >= least) === 0;
    };
  }

  // Yes at the foot and full, what was no above it and pale: told apart by lightness too.
  function bars({ columns, rows }, c, box) {
    const parts = [
      [1, { color: c.yes }],
      [2, { color: c["no-soft"], borderColor: c.no, borderWidth: 1 }],
      [3, { color: c["unsure-soft"], borderColor: c.unsure, borderWidth: 1, borderType: "dashed" }],
      [4, { color: "transparent", borderColor: c.line, borderWidth: 1, borderType: "dotted" }],
    ].filter(([part]) => part === 1 || rows.some((row) => row[part]));
    const base = frame(c, ["Round", "Images"], { category: true });
    const rounds = rows.map((row) => row[0]);
    return {
      ...base,
      xAxis: { ...base.xAxis, data: rounds, axisLabel: { ...base.xAxis.axisLabel, interval: sparse(box, rounds) } },
      yAxis: { ...base.yAxis, minInterval: 1 },
      series: parts.map(([part, itemStyle]) => ({
        type: "bar",
        stack: "all",
        name: columns[part],
        data: rows.map((row) => row[part]),
        itemStyle,
        barCategoryGap: "20%",
      })),
    };
  }

  function interval({ rows }, c) {
    const base = frame(c, ["Round", "Coverage"]);
    const line = (name, data, more) => ({ type: "line", name, data, symbol: "none", ...more });
    return {
      ...base,
      legend: { ...base.legend, data: ["Coverage", area("90 % interval", c.accent, 0.3)] },
      tooltip: {
        ...base.tooltip,
        formatter: ([one]) => {
          const row = rows[one.dataIndex];
          const [value, low, high] = row.slice(1).map(percent);
          return `After round ${row[0]}: ${value}${between(0.9, low, high)}`;
        },
      },
      xAxis: { ...base.xAxis, min: rows[0][0], max: rows[rows.length - 1][0], minInterval: 1 },
      yAxis: { ...base.yAxis, min: 0, max: 1, axisLabel: { ...base.yAxis.axisLabel, formatter: percent } },
      series: [
        line("low", rows.map((row) => [row[0], row[2]]), { stack: "band", lineStyle: { opacity: 0 } }),
        line("90 % interval", rows.map((row) => [row[0], row[3] - row[2]]), {
          stack: "band",
          lineStyle: { opacity: 0 },
          itemStyle: { color: c.accent, opacity: 0.3 },
          areaStyle: { color: c.accent, opacity: 0.18 },
        }),
        line("Coverage", rows.map((row) => [row[0], row[1]]), {
          symbol: "circle",
          symbolSize: 6,
          lineStyle: { color: c.accent, width: 2 },
          itemStyle: { color: c.accent },
        }),
      ],
    };
  }

  // Each group in shares of itself: thousands without an answer would hide a hundred answers.
  function histogram({ columns, rows, marks }, c) {
    const base = frame(c, ["Score", "Share of its group"]);
    const series = (part, color, more) => {
      const total = rows.reduce((sum, row) => sum + row[part], 0) || 1;
      const data = rows.map((row) => [(row[0] + row[1]) / 2, row[part] / total]);
      return { type: "line", name: columns[part], data, step: "middle", itemStyle: { color }, lineStyle: { color, width: 2 }, ...more };
    };
    return {
      ...base,
      legend: { ...base.legend, data: [area(columns[4], c.muted, 0.3), columns[3], columns[2]] },
      tooltip: {
        ...base.tooltip,
        formatter: ([one]) => {
          const row = rows[one.dataIndex];
          return `${row[0].toFixed(1)} to ${row[1].toFixed(1)}: ${row[2]} yes, ${row[3]} no, ${spaced(row[4])} without an answer`;
        },
      },
      yAxis: { ...base.yAxis, axisLabel: { ...base.yAxis.axisLabel, formatter: percent } },
      series: [
        series(4, c.muted, {
          symbol: "none",
          lineStyle: { width: 0 },
          areaStyle: { color: c.muted, opacity: 0.3 },
          markLine: {
            silent: true,
            symbol: "none",
            lineStyle: { color: c.text, type: "dashed" },
            label: { formatter: "boundary", color: c.text },
            data: [{ xAxis: marks.boundary }],
          },
        }),
        series(3, c.no, { symbol: "diamond", symbolSize: 7, lineStyle: { color: c.no, type: "dashed", width: 2 } }),
        series(2, c.yes, { symbol: "circle", symbolSize: 6 }),
      ],
    };
  }

  // What was said, with its interval, beside what was true: dashed, and with other marks.
  function against({ rows, marks }, c) {
    const base = frame(c, ["Round", marks.share ? "Share" : "Images"]);
    const put = (value) => (value === null ? "–" : marks.share ? `${Math.round(100 * value)} %` : spaced(value));
    const line = (name, column, more) => ({
      type: "line",
      name,
      data: rows.map((row) => [row[0], column(row)]),
      symbol: "none",
      ...more,
    });
    const band = `${Math.round(100 * marks.level)} % interval`;
    const axis = marks.share ? { max: 1, axisLabel: { ...base.yAxis.axisLabel, formatter: (v) => `${Math.round(100 * v)} %` } } : {};
    return {
      ...base,
      legend: { ...base.legend, data: marks.level ? ["Said", area(band, c.accent, 0.3), "True"] : ["Said", "True"] },
      tooltip: {
        ...base.tooltip,
        formatter: ([one]) => {
          const [round, said, low, high, truth] = rows[one.dataIndex];
          const range = low === null ? "" : between(marks.level, put(low), put(high));
          return `After round ${round}: said ${put(said)}${range}, true ${put(truth)}`;
        },
      },
      xAxis: { ...base.xAxis, min: rows[0][0], max: rows[rows.length - 1][0], minInterval: 1 },
      yAxis: { ...base.yAxis, min: 0, ...axis },
      series: [
        line("low", (row) => row[2], { stack: "band", lineStyle: { opacity: 0 } }),
        line(band, (row) => (row[2] === null ? null : row[3] - row[2]), {
          stack: "band",
          lineStyle: { opacity: 0 },
          itemStyle: { color: c.accent, opacity: 0.3 },
          areaStyle: { color: c.accent, opacity: 0.18 },
        }),
        line("Said", (row) => row[1], {
          symbol: "circle",
          symbolSize: 6,
          lineStyle: { color: c.accent, width: 2 },
          itemStyle: { color: c.accent },
        }),
        line("True", (row) => row[4], {
          symbol: "diamond",
          symbolSize: 7,
          lineStyle: { color: c.text, width: 2, type: "dashed" },
          itemStyle: { color: c.text },
        }),
      ],
    };
  }

  // The diagonal is a promise kept; each point lies on its interval, larger for more answers.
  function calibration({ rows }, c) {
    const base = frame(c, ["Chance said before", "Share of yes"]);
    const shares = (axis) => ({ ...axis, min: 0, max: 1, axisLabel: { ...axis.axisLabel, formatter: percent } });
    const most = Math.max(...rows.map((row) => row[4]));
    const upright = { name: "90 % interval", icon: "path://M0 0h9v2h-3.5v6h3.5v2h-9v-2h3.5v-6h-3.5z" };
    const dashes = { name: "Promise kept", icon: "path://M0 0h4v1.5h-4zM6 0h4v1.5h-4zM12 0h4v1.5h-4z" };
    return {
      ...base,
      legend: { ...base.legend, data: ["Answers", upright, dashes] },
      tooltip: { ...base.tooltip, trigger: "item" },
      xAxis: shares(base.xAxis),
      yAxis: shares(base.yAxis),
      series: [
        {
          type: "line",
          name: "Promise kept",
          data: [[0, 0], [1, 1]],
          symbol: "none",
          silent: true,
          itemStyle: { color: c.muted },
          lineStyle: { color: c.muted, type: "dashed", width: 1.5 },
        },
        {
          type: "line",
          name: "90 % interval",
          data: rows.flatMap((row) => [[row[2], row[6]], [row[2], row[7]], [row[2], null]]),
          symbol: "rect",
          symbolSize: [9, 2],
          silent: true,
          itemStyle: { color: c.accent },
          lineStyle: { color: c.accent, width: 2 },
        },
        {
          type: "scatter",
          name: "Answers",
          data: rows.map((row) => ({ value: [row[2], row[5]], symbolSize: 8 + 10 * Math.sqrt(row[4] / most), row })),
          itemStyle: { color: c.yes },
          tooltip: {
            formatter: ({ data: { row } }) =>
              `Said ${percent(row[0])} to ${percent(row[1])}: ${row[3]} of ${row[4]} ${row[3] === 1 ? "was a" : "were"} yes (${percent(row[5])})`,
          },
        },
      ],
    };
  }

  function hours({ rows, marks }, c) {
    const base = frame(c, ["", "Rounds"]);
    return {
      ...base,
      legend: { show: false },
      grid: { ...base.grid, top: 12, bottom: 36 },
      tooltip: { ...base.tooltip, formatter: ([one]) => `${new Date(one.value[0]).toLocaleString()}: ${one.value[1]}` },
      xAxis: { ...base.xAxis, type: "time", name: "", min: marks.since, max: marks.until, containShape: false, axisLabel: { ...base.xAxis.axisLabel, formatter: null } },
      yAxis: { ...base.yAxis, minInterval: 1 },
      series: [{ type: "bar", name: "Rounds", data: rows, barWidth: window.innerWidth < 640 ? 1.5 : 4, itemStyle: { color: c.accent } }],
    };
  }

  function map({ rows }, c) {
    const base = frame(c, ["", ""]);
    const groups = [
      ["Near miss", "triangle", 6, { color: "transparent", borderColor: c.muted, borderWidth: 1 }],
      ["Likely", "diamond", 11, { color: "transparent", borderColor: c.accent, borderWidth: 2 }],
      ["Found", "circle", 10, { color: c.yes, opacity: 0.85 }],
    ];
    const bare = { axisLabel: { show: false }, axisTick: { show: false }, splitLine: { show: false }, axisLine: { show: false }, scale: true };
    return {
      ...base,
      grid: { left: 8, right: 8, top: 36, bottom: 8 },
      tooltip: { show: false },
      xAxis: { ...base.xAxis, ...bare, name: "" },
      yAxis: { ...base.yAxis, ...bare, name: "" },
      dataZoom: [
        { type: "inside", xAxisIndex: 0, filterMode: "none", zoomOnMouseWheel: "ctrl", moveOnMouseMove: true },
        { type: "inside", yAxisIndex: 0, filterMode: "none", zoomOnMouseWheel: "ctrl", moveOnMouseMove: true },
      ],
      series: [
        { type: "scatter", id: "pictures", symbolSize: 56, symbolKeepAspect: true, symbolOffset: [0, "60%"], z: 1, data: [] },
        ...groups.map(([name, symbol, symbolSize, itemStyle]) => ({
          type: "scatter",
          name,
          symbol,
          symbolSize,
          itemStyle,
          data: rows.filter((row) => row[1] === name).map((row) => [row[2], row[3], row[0]]),
        })),
      ],
    };
  }

  function dates({ columns, rows }, c, box) {
    const base = frame(c, [columns[0], "Share of its group"], { category: true });
    const long = { Day: 10, Week: 10, Month: 7, Year: 4 }[columns[0]];
    const days = rows.map((row) => row[0].slice(0, long));
    return {
      ...base,
      legend: { ...base.legend, data: ["Found", "Likely", area("All images", c.muted, 0.25)] },
      tooltip: {
        ...base.tooltip,
        formatter: ([one]) => tell(rows[one.dataIndex], `${columns[0]} ${rows[one.dataIndex][0].slice(0, long)}`),
      },
      xAxis: { ...base.xAxis, data: days, axisLabel: { ...base.xAxis.axisLabel, interval: sparse(box, days) } },
      yAxis: { ...base.yAxis, axisLabel: { ...base.yAxis.axisLabel, formatter: percent } },
      series: [
        { type: "bar", name: "Found", data: shares(rows, 1), itemStyle: { color: c.yes }, barMaxWidth: 36, barMinWidth: 2, barGap: "10%" },
        {
          type: "bar",
          name: "Likely",
          data: shares(rows, 2).map((share) => share || null), // an empty bar would be a dot
          itemStyle: { color: "transparent", borderColor: c.accent, borderWidth: 1 },
          barWidth: "15%",
          barMaxWidth: 10,
        },
        {
          type: "line",
          name: "All images",
          data: shares(rows, 3),
          step: "middle",
          symbol: "none",
          z: 0,
          itemStyle: { color: c.muted },
          lineStyle: { color: c.muted, width: 1 },
          areaStyle: { color: c.muted, opacity: 0.25 },
        },
      ],
    };
  }

  // A dial of 24 hours, midnight at the top; the area of a sector is its share.
  function clock({ rows }, c) {
    const base = frame(c, ["", ""]);
    const groups = [3, 1, 2].map((part) => shares(rows, part).map(Math.sqrt));
    const most = Math.max(...groups.flat());
    const rose = (name, data, itemStyle, more) => ({
      type: "pie",
      name,
      roseType: "area",
      startAngle: 90,
      center: ["50%", "54%"],
      radius: [0, `${(76 * Math.max(...data)) / most}%`],
      label: { show: false },
      labelLine: { show: false },
      emphasis: { scale: false },
      data: data.map((value, hour) => ({ value, name: `${hour}`, itemStyle })),
      ...more,
    });
    const dial = {
      type: "pie",
      silent: true,
      startAngle: 97.5,
      center: ["50%", "54%"],
      radius: ["77%", "77.5%"],
      itemStyle: { color: c.line },
      label: { color: c.muted, overflow: "none", formatter: ({ dataIndex }) => (dataIndex % 3 ? "" : `${dataIndex} h`) },
      labelLine: { length: 9, length2: 0, lineStyle: { opacity: 0 } },
      data: rows.map((row) => ({ value: 1, name: `at ${row[0]}` })),
    };
    return {
      tooltip: {
        ...base.tooltip,
        trigger: "item",
        formatter: ({ dataIndex }) => tell(rows[dataIndex], `${dataIndex} to ${(dataIndex + 1) % 24} h`),
      },
      series: [
        dial,
        rose("All images", groups[0], { color: c.muted, opacity: 0.3 }),
        rose("Found", groups[1], { color: c.yes, opacity: 0.85 }),
        rose("Likely", groups[2], { color: "transparent", borderColor: c.accent, borderWidth: 1.5 }, { silent: true }),
      ],
      // A legend of pies would name the hours.
      graphic: [["All images", { fill: c.muted, opacity: 0.3 }], ["Found", { fill: c.yes }], ["Likely", { fill: "none", stroke: c.accent, lineWidth: 1.5 }]].flatMap(
        ([text, style], place) => [
          { type: "rect", silent: true, shape: { x: 1, y: 4 + 22 * place, width: 16, height: 10, r: 2 }, style },
          { type: "text", silent: true, style: { text, x: 24, y: 3 + 22 * place, fill: c.text, font: "12px sans-serif" } },
        ],
      ),
    };
  }

  // Latitude and longitude without a map beneath; both axes in the same scale on the ground.
  function places({ rows }, c, box) {
    const base = frame(c, ["Longitude", "Latitude"]);
    const grid = { left: 72, right: 24, top: 44, bottom: 53 };
    const wide = Math.max(box.clientWidth - grid.left - grid.right, 50);
    const high = Math.max(box.clientHeight - grid.top - grid.bottom, 50);
    const [south, north] = ends(rows.map((row) => row[0]));
    const [west, east] = ends(rows.map((row) => row[1]));
    const squeeze = Math.cos((((south + north) / 2) * Math.PI) / 180) || 1;
    // Degrees of latitude in one pixel; a single place gets about a kilometre around it.
    const scale = 1.25 * Math.max((north - south) / high, ((east - west) * squeeze) / wide, 0.01 / high);
    const range = (low, top, half) => ({ min: (low + top) / 2 - half, max: (low + top) / 2 + half });
    const digits = Math.max(0, Math.ceil(-Math.log10(scale * 60)));
    const put = { formatter: (degrees) => `${degrees.toFixed(digits)}°`, showMinLabel: false, showMaxLabel: false };
    const axis = (one) => ({
      ...one,
      axisLabel: { ...one.axisLabel, ...put },
      splitNumber: 4,
      splitLine: { show: true, lineStyle: { color: c.line } },
    });
    const largest = Math.max(...rows.map((row) => row[4]));
    const circles = (name, part, symbol, least, itemStyle) => ({
      type: "scatter",
      name,
      symbol,
      data: rows
        .filter((row) => row[part])
        .map((row) => ({ value: [row[1], row[0]], symbolSize: Math.max(least, 34 * Math.sqrt(row[part] / largest)), row })),
      itemStyle,
    });
    const kilometres = scale * 111.2; // in one pixel
    const decades = [0.001, 0.01, 0.1, 1, 10, 100, 1000].flatMap((ten) => [ten, 2 * ten, 5 * ten]);
    const ruler = decades.filter((length) => length / kilometres <= 120).pop() ?? 0.001;
    const length = ruler / kilometres;
    const right = box.clientWidth - grid.right - 10;
    const foot = box.clientHeight - grid.bottom - 12;
    const line = (points) => ({ type: "polyline", silent: true, shape: { points }, style: { stroke: c.text, lineWidth: 1.5, fill: "none" } });
    const word = (text, x, y) => ({ type: "text", silent: true, style: { text, x, y, fill: c.text, align: "center", font: "12px sans-serif" } });
    const top = grid.top + 8;
    return {
      ...base,
      grid,
      tooltip: { ...base.tooltip, trigger: "item", formatter: ({ data: { row } }) => tell(row, `${row[0]}, ${row[1]}`) },
      xAxis: { ...axis(base.xAxis), ...range(west, east, (scale * wide) / squeeze / 2) },
      yAxis: { ...axis(base.yAxis), ...range(south, north, (scale * high) / 2), nameGap: 56 },
      series: [
        circles("All images", 4, "circle", 5, { color: c.muted, opacity: 0.35 }),
        circles("Found", 2, "circle", 6, { color: c.yes, opacity: 0.85 }),
        circles("Likely", 3, "diamond", 8, { color: "transparent", borderColor: c.accent, borderWidth: 1.5 }),
      ],
      graphic: [
        line([[right - length, foot - 4], [right - length, foot], [right, foot], [right, foot - 4]]),
        word(ruler < 1 ? `${1000 * ruler} m` : `${ruler} km`, right - length / 2, foot - 18),
        line([[right - 6, top + 8], [right, top], [right + 6, top + 8]]),
        line([[right, top], [right, top + 20]]),
        word("N", right, top + 24),
      ],
    };
  }

  function ends(values) {
    return [Math.min(...values), Math.max(...values)];
  }

  function deployments({ rows }, c) {
    const drawn = rows.slice(0, mostDeployments);
    const base = frame(c, ["", ""], { category: true });
    const bar = (name, value, itemStyle) => ({ type: "bar", stack: "all", name, data: drawn.map((row) => value(row) || null), itemStyle, barMaxWidth: 14 });
    return {
      ...base,
      grid: { left: 8, right: 24, top: 36, bottom: 8, containLabel: true },
      tooltip: {
        ...base.tooltip,
        formatter: ([one]) => {
          const [name, found, answered, likely, every] = drawn[one.dataIndex];
          return `${name}: ${spaced(found)} found of ${spaced(answered)} answered, ${spaced(likely)} likely, ${spaced(every)} images in all`;
        },
      },
      xAxis: { ...base.yAxis, minInterval: 1 },
      yAxis: {
        ...base.xAxis,
        inverse: true,
        data: drawn.map((row) => row[0]),
        axisLabel: { color: c.text, width: Math.min(180, window.innerWidth / 3), overflow: "truncate" },
      },
      series: [
        bar("Found", (row) => row[1], { color: c.yes }),
        bar("Answered otherwise", (row) => row[2] - row[1], { color: c["no-soft"], borderColor: c.no, borderWidth: 1 }),
        bar("Likely", (row) => row[3], { color: "transparent", borderColor: c.accent, borderWidth: 1, borderType: "dashed" }),
      ],
    };
  }

  // Halves what is shown, around the middle one of the points in sight; 0 shows everything.
  function zoom(box, chart, part) {
    const points = listShown(box, chart);
    chart.getOption().dataZoom.forEach(({ start, end }, dataZoomIndex) => {
      const [low, high] = getExtents(chart)[dataZoomIndex];
      const places = points.map((row) => row[2 + dataZoomIndex]).sort((a, b) => a - b);
      const place = places[Math.floor(places.length / 2)] ?? (low + high) / 2;
      const middle = start + ((place - low) / (high - low)) * (end - start);
      const half = ((end - start) / 2) * part;
      const shown = part ? { start: Math.max(0, middle - half), end: Math.min(100, middle + half) } : { start: 0, end: 100 };
      chart.dispatchAction({ type: "dataZoom", dataZoomIndex, ...shown });
    });
  }

  function getExtents(chart) {
    return ["xAxis", "yAxis"].map((axis) => chart.getModel().getComponent(axis).axis.scale.getExtent());
  }

  function listShown(box, chart) {
    const [across, up] = getExtents(chart);
    return JSON.parse(box.dataset.plot).rows.filter(
      (row) => row[2] >= across[0] && row[2] <= across[1] && row[3] >= up[0] && row[3] <= up[1],
    );
  }

  // Where few points are left on the map their pictures hang beneath them.
  function showPictures(box, chart) {
    const shown = listShown(box, chart);
    const pictures = shown.length > mostPictures ? [] : shown;
    chart.setOption({
      series: [
        {
          id: "pictures",
          data: pictures.map((row) => ({ value: [row[2], row[3], row[0]], symbol: `image:///images/${row[0]}/small` })),
        },
      ],
    });
  }

  // The image under the pointer; a click opens it.
  function followPointer(box, chart) {
    chart.on("datazoom", () => showPictures(box, chart));
    chart.on("mouseover", ({ value, event }) => {
      const { clientX, clientY } = event.event;
      peek.src = `/images/${value[2]}/small`;
      peek.style.left = `${Math.min(clientX + 14, window.innerWidth - 200)}px`;
      peek.style.top = `${Math.max(8, Math.min(clientY + 14, window.innerHeight - 200))}px`;
      peek.hidden = false;
    });
    chart.on("mouseout", () => (peek.hidden = true));
    chart.on("click", ({ value }) => {
      window.location.href = `/searches/${box.closest("figure").dataset.search}/images/${value[2]}`;
    });
  }
}
