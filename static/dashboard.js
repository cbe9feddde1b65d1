// Draws the plots of the dashboard from the numbers in data-plot, as SVG: when the page and each
// later part arrive, and again when the colours change. The table beneath holds the same numbers.
"use strict";
{
  const charts = new Map();
  const kinds = { bars, interval, histogram, calibration, map };
  const peek = document.getElementById("peek");
  const still = { animation: false, textStyle: { fontFamily: "inherit" } };

  drawAll();
  document.addEventListener("htmx:afterSettle", drawAll);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  new MutationObserver(redraw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  window.addEventListener("scroll", () => (peek.hidden = true), { passive: true });

  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-svg]");
    if (!button) return;
    const box = button.closest("figure").querySelector("[data-plot]");
    const link = document.createElement("a");
    const svg = new Blob([charts.get(box).renderToSVGString()], { type: "image/svg+xml" });
    link.href = URL.createObjectURL(svg);
    link.download = `${JSON.parse(box.dataset.plot).name}.svg`;
    link.click();
    URL.revokeObjectURL(link.href);
  });

  function drawAll() {
    for (const box of document.querySelectorAll("[data-plot]")) {
      if (charts.has(box)) continue;
      const chart = echarts.init(box, null, { renderer: "svg" });
      charts.set(box, chart);
      new ResizeObserver(() => chart.resize()).observe(box);
      draw(box, chart);
      if (box.classList.contains("map")) followPointer(box, chart);
    }
  }

  function redraw() {
    for (const [box, chart] of charts) draw(box, chart);
  }

  function draw(box, chart) {
    const plot = JSON.parse(box.dataset.plot);
    chart.setOption({ ...still, ...kinds[plot.kind](plot, colours()) }, true);
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
    const axis = {
      nameLocation: "middle",
      nameTextStyle: { color: c.muted },
      axisLabel: { color: c.muted },
      axisLine: { lineStyle: { color: c.line } },
      splitLine: { lineStyle: { color: c.line } },
    };
    return {
      grid: { left: 52, right: 12, top: 36, bottom: 44 },
      legend: { top: 0, left: 0, textStyle: { color: c.text }, itemHeight: 10, itemWidth: 16, itemGap: 20 },
      tooltip: { trigger: "axis", renderMode: "richText", confine: true },
      xAxis: { ...axis, type: category ? "category" : "value", name: names[0], nameGap: 28, splitLine: { show: false } },
      yAxis: { ...axis, type: "value", name: names[1], nameGap: 38 },
    };
  }

  // Yes at the foot and full, what was no above it and pale: told apart by lightness too.
  function bars({ columns, rows }, c) {
    const parts = [
      [1, { color: c.yes }],
      [2, { color: c["no-soft"], borderColor: c.no, borderWidth: 1 }],
      [3, { color: c["unsure-soft"], borderColor: c.unsure, borderWidth: 1, borderType: "dashed" }],
      [4, { color: "transparent", borderColor: c.line, borderWidth: 1, borderType: "dotted" }],
    ].filter(([part]) => part === 1 || rows.some((row) => row[part]));
    const base = frame(c, ["Round", "Images"], { category: true });
    return {
      ...base,
      xAxis: { ...base.xAxis, data: rows.map((row) => row[0]) },
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
      legend: { ...base.legend, data: ["Coverage", "90 % interval"] },
      tooltip: {
        ...base.tooltip,
        formatter: ([one]) => {
          const row = rows[one.dataIndex];
          const [value, low, high] = row.slice(1).map((share) => `${Math.round(100 * share)} %`);
          return `After round ${row[0]}: ${value} (${low} to ${high})`;
        },
      },
      xAxis: { ...base.xAxis, min: rows[0][0], max: rows[rows.length - 1][0], minInterval: 1 },
      yAxis: { ...base.yAxis, min: 0, max: 1, axisLabel: { color: c.muted, formatter: (v) => `${Math.round(100 * v)} %` } },
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
      tooltip: {
        ...base.tooltip,
        formatter: ([one]) => {
          const row = rows[one.dataIndex];
          return `${row[0].toFixed(1)} to ${row[1].toFixed(1)}: ${row[2]} yes, ${row[3]} no, ${row[4]} without an answer`;
        },
      },
      yAxis: { ...base.yAxis, axisLabel: { color: c.muted, formatter: (v) => `${Math.round(100 * v)} %` } },
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

  // The diagonal is a promise kept; each point lies on its interval, larger for more answers.
  function calibration({ rows }, c) {
    const base = frame(c, ["Chance said before", "Share of yes"]);
    const percent = (share) => `${Math.round(100 * share)} %`;
    const shares = { min: 0, max: 1, axisLabel: { color: c.muted, formatter: percent } };
    const most = Math.max(...rows.map((row) => row[4]));
    return {
      ...base,
      legend: { ...base.legend, data: ["Answers", "90 % interval", "Promise kept"] },
      tooltip: { ...base.tooltip, trigger: "item" },
      xAxis: { ...base.xAxis, ...shares },
      yAxis: { ...base.yAxis, ...shares },
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
              `Said ${percent(row[0])} to ${percent(row[1])}: ${row[3]} of ${row[4]} were yes (${percent(row[5])})`,
          },
        },
      ],
    };
  }

  function map({ rows }, c) {
    const base = frame(c, ["", ""]);
    const bare = { axisLabel: { show: false }, axisTick: { show: false }, splitLine: { show: false }, axisLine: { show: false }, scale: true };
    const groups = [
      ["Near miss", "triangle", 6, { color: "transparent", borderColor: c.muted, borderWidth: 1 }],
      ["Likely", "diamond", 11, { color: "transparent", borderColor: c.accent, borderWidth: 2 }],
      ["Found", "circle", 10, { color: c.yes, opacity: 0.85 }],
    ];
    return {
      ...base,
      grid: { left: 8, right: 8, top: 36, bottom: 8 },
      tooltip: { show: false },
      xAxis: { ...base.xAxis, ...bare, name: "" },
      yAxis: { ...base.yAxis, ...bare, name: "" },
      dataZoom: [
        { type: "inside", xAxisIndex: 0, zoomOnMouseWheel: "ctrl", moveOnMouseMove: true },
        { type: "inside", yAxisIndex: 0, zoomOnMouseWheel: "ctrl", moveOnMouseMove: true },
      ],
      series: groups.map(([name, symbol, symbolSize, itemStyle]) => ({
        type: "scatter",
        name,
        symbol,
        symbolSize,
        itemStyle,
        data: rows.filter((row) => row[1] === name).map((row) => [row[2], row[3], row[0]]),
      })),
    };
  }

  // The image under the pointer; a click opens it.
  function followPointer(box, chart) {
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
