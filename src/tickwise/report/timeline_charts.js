// The pictures: lanes of a tick, long lists of bars, the roofline, the table of stages. Text goes in as text nodes only.

function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "style") for (const [name, set] of Object.entries(value)) node.style.setProperty(name, set);
    else if (key === "tip") tips.set(node, value);
    else if (key === "click") node.addEventListener("click", value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}
function shape(tag, props, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(props)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}
const tips = new WeakMap();  // node → function that gives the lines to show beside the pointer

const figure = (width, value) => WIDTHS.find((one) => one.key === width).format(value);

function partFigures(trace, sum) {
  const parts = [duration(sum.time)];
  if (Number.isNaN(sum.flops) && Number.isNaN(sum.bytes)) parts.push("FLOPs and bytes n/a");
  else {
    parts.push(Number.isNaN(sum.flops) ? "FLOPs n/a" : quantity(sum.flops, "FLOP"), `read ${quantity(sum.read, "B")}`,
               `wrote ${quantity(sum.written, "B")}`, `${ofCeiling(sum)} of ceiling`);
  }
  if (Number.isFinite(sum.energy)) parts.push(energy(sum.energy));
  return parts.join(" · ");
}

function rowSum(trace, row) {
  const sum = emptySum(trace.stage[row]);
  addRow(sum, trace, row);
  return finish(trace, sum);
}

// One lane per stage; parts stand one after another in the order in which they ran, `full` is the amount that fills a lane.
function lanes(trace, tick, { width, keep = () => true, full = null, id = "part", label, numbered = true }) {
  const byStage = new Map();
  let at = 0;
  for (let row = tick.first; row < tick.last; row += 1) {
    if (!keep(row)) continue;
    const stage = trace.stage[row];
    if (!byStage.has(stage)) byStage.set(stage, { stage, value: NaN, parts: [] });
    const lane = byStage.get(stage), value = trace[width][row];
    lane.value = plus(lane.value, value);
    lane.parts.push({ row, start: at, value });
    if (!Number.isNaN(value)) at += value;
  }
  const scale = full ?? at;
  const slowest = Math.max(...[...byStage.values()].map((lane) => lane.value || 0));
  const node = el("div", { class: "lanes", role: "listbox", tabindex: "0", "aria-label": label });
  const items = [...byStage.values()].map((lane) => {
    const name = trace.stages[lane.stage];
    const track = el("div", { class: "track" });
    const share = at > 0 ? lane.value / at : NaN;
    const parts = lane.parts.map((part) => {
      const bound = trace.bound[part.row], layer = trace.layer[part.row];
      const wide = part.value / scale > 0.035;
      const piece = el("div", {
        class: `part bound-${bound}`, role: "option", id: `${id}-${part.row}`, "aria-selected": "false",
        "aria-label": `${name}${layer < 0 ? "" : `, layer ${layer}`}, ${figure(width, part.value)}, `
          + (bound ? `${trace.bounds[bound]}-bound` : "bound n/a"),
        "data-row": part.row, "data-stage": name, "data-layer": layer < 0 ? null : layer, "data-value": part.value,
        style: { left: `${100 * part.start / scale || 0}%`, width: `${100 * part.value / scale || 0}%` },
        tip: () => [name + (layer < 0 ? "" : `, layer ${layer}`), partFigures(trace, rowSum(trace, part.row)),
                    bound ? `${trace.bounds[bound]}-bound` : "bound n/a"],
      }, numbered && wide && layer >= 0 ? String(layer) : null);
      track.append(piece);
      return { node: piece, row: part.row, middle: part.start + (part.value || 0) / 2 };
    });
    const text = `${figure(width, lane.value)} · ${percent(share)}`;
    node.append(el("div", { class: lane.value === slowest ? "lane slowest" : "lane", role: "group",
                            "aria-label": `${name}: ${text}` },
                   el("span", { class: "lane-name" }, name), track, el("span", { class: "lane-value" }, text)));
    return parts;
  });
  if (!(at > 0)) node.prepend(el("p", { class: "notice" }, `n/a: this trace has no figure for this width here.`));
  return { node, items };
}

// Rows of one height in a box that scrolls; only those in sight exist.
function longList(box, count, height, draw) {
  const space = el("div", { class: "space-for-rows", role: "presentation", style: { height: `${count * height}px` } });
  const drawn = new Map();
  box.append(space);
  const paint = () => {
    const first = Math.max(0, Math.floor(box.scrollTop / height) - 3);
    const last = Math.min(count, Math.ceil((box.scrollTop + box.clientHeight) / height) + 3);
    for (const [index, node] of drawn) if (index < first || index >= last) { node.remove(); drawn.delete(index); }
    for (let index = first; index < last; index += 1) {
      if (drawn.has(index)) continue;
      const node = draw(index);
      node.style.top = `${index * height}px`;
      node.style.height = `${height}px`;
      space.append(node);
      drawn.set(index, node);
    }
  };
  box.addEventListener("scroll", paint, { passive: true });
  return {
    paint,
    show(index) {
      if (index * height < box.scrollTop) box.scrollTop = index * height;
      if ((index + 1) * height > box.scrollTop + box.clientHeight) box.scrollTop = (index + 1) * height - box.clientHeight;
      paint();
      return drawn.get(index);
    },
  };
}

// A tick as one bar of its stages. Bars longer than `full` are cut and say so.
function stackedBar(trace, tick, width, full) {
  const cut = tick.sums[width] > full;
  const bar = el("div", { class: cut ? "stack cut" : "stack" });
  for (const sum of stageSums(trace, [tick])) {
    if (!(sum[width] > 0)) continue;
    const share = sum[width] / Math.max(full, tick.sums[width]);
    bar.append(el("span", { class: `bound-${sum.bound}`, style: { width: `${100 * share}%` },
                            tip: () => [trace.stages[sum.stage], partFigures(trace, sum)] }));
  }
  return bar;
}

// The ticks of the run that a request took part in, side by side; each is split by the time of its bounds.
function runStrip(trace, line, width) {
  const canvas = el("canvas", { class: "strip", "aria-hidden": "true" });
  const draw = () => {
    const ratio = window.devicePixelRatio || 1, box = canvas.getBoundingClientRect();
    canvas.width = Math.max(1, Math.round(box.width * ratio));
    canvas.height = Math.max(1, Math.round(box.height * ratio));
    const pen = canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
    const colours = [0, 1, 2, 3].map((bound) => style.getPropertyValue(`--bound-${bound}`).trim());
    const ink = style.getPropertyValue("--ink").trim();
    const all = trace.ticks.reduce((sum, tick) => sum + (tick.sums[width] || 0), 0);
    const mine = new Set(line.cells.map((cell) => cell.tick.index));
    let at = 0;
    for (const tick of trace.ticks) {
      const from = at / all * canvas.width, wide = (tick.sums[width] || 0) / all * canvas.width;
      at += tick.sums[width] || 0;
      if (!mine.has(tick.index) || !(wide > 0)) continue;
      let y = canvas.height;
      tickBounds(trace, tick).forEach((time, bound) => {
        const tall = time / tick.sums.time * canvas.height;
        pen.fillStyle = colours[bound];
        pen.fillRect(from, y - tall, Math.max(wide, 0.75), tall);
        y -= tall;
      });
      if (tick.phase === "prefill") { pen.fillStyle = ink; pen.fillRect(from, 0, Math.max(wide, 1.5), 2 * ratio); }
    }
  };
  return { canvas, draw };
}
function tickBounds(trace, tick) {
  if (!tick.bounds) {
    tick.bounds = [0, 0, 0, 0];
    for (let row = tick.first; row < tick.last; row += 1) tick.bounds[trace.bound[row]] += trace.time[row];
  }
  return tick.bounds;
}

// FLOP/s over FLOPs per byte, both logarithmic, under what this machine was measured to do: the picture, its points, and
// the stages that have no place on it. `series` are {sums, name, hollow}.
const PLOT = { wide: 400, tall: 326, left: 48, right: 14, top: 18, bottom: 38 };

function roofline(trace, series) {
  const named = series.map((one) => ({ ...one, all: total(one.sums).time }));
  const points = named.flatMap(({ sums, name, hollow, all }) => sums.filter((sum) => sum.flops > 0 && sum.bytes > 0).map((sum) => ({
    sum, name, hollow, x: sum.flops / sum.bytes, y: sum.flops / (sum.time / 1e9), size: 4 + 9 * Math.sqrt(sum.time / all) })));
  const absent = [...new Set(series.flatMap(({ sums }) => sums.filter((sum) => !(sum.flops > 0 && sum.bytes > 0))
    .map((sum) => trace.stages[sum.stage])))];
  if (!points.length) return { node: el("p", { class: "notice" }, "No stage here has counted FLOPs and bytes."), points, absent };
  points.sort((a, b) => b.sum.time - a.sum.time);
  const svg = shape("svg", { viewBox: `0 0 ${PLOT.wide} ${PLOT.tall}`, role: "img", tabindex: "0", id: "roofline-plot",
    "aria-label": `Roofline of ${points.length} stages. Arrow keys read the values.` });
  const axes = rooflineAxes(trace.meta, points);
  const taken = [];  // boxes of the texts that stand already: [left, top, right, bottom]
  drawGrid(svg, axes);
  drawRoof(svg, axes, trace.meta, taken);
  points.forEach((point, index) => {
    const dot = shape("circle", { class: `dot bound-${point.sum.bound}${point.hollow ? " hollow" : ""}`, cx: axes.x(point.x), cy: axes.y(point.y),
                                  r: point.size, "data-stage": trace.stages[point.sum.stage], "data-point": index });
    tips.set(dot, () => rooflineText(trace, point));
    svg.append(dot);
  });
  const dots = points.map(({ x, y, size }) => [axes.x(x) - size, axes.y(y) - size, axes.x(x) + size, axes.y(y) + size]);
  points.forEach((point, index) => {
    if (point.hollow) return;
    const others = dots.filter((_, other) => other !== index);
    nameDot(svg, axes.x(point.x), axes.y(point.y), point.size, trace.stages[point.sum.stage], taken, others);
  });
  return { node: svg, points, absent };
}
function rooflineAxes({ bandwidth, peaks }, points) {
  const { log10 } = Math, best = Math.max(0, ...Object.values(peaks));
  const xs = points.map((point) => log10(point.x)), ys = points.map((point) => log10(point.y));
  if (best) ys.push(log10(best));
  if (best && bandwidth) xs.push(log10(best / bandwidth));
  const low = [Math.min(...xs) - 0.3, Math.min(...ys) - 0.3], high = [Math.max(...xs) + 0.55, Math.max(...ys) + 0.22];
  const { wide, tall, left, right, top, bottom } = PLOT;
  return { low, high,
           x: (value) => left + (log10(value) - low[0]) / (high[0] - low[0]) * (wide - left - right),
           y: (value) => top + (high[1] - log10(value)) / (high[1] - low[1]) * (tall - top - bottom) };
}
const svgText = (value, x, y, props = {}) => shape("text", { class: "tick", x, y, ...props }, value);
function roundValues(low, high) {
  const factors = high - low > 2.2 ? [1] : [1, 2, 5], found = [];
  for (let power = Math.floor(low); power <= high; power += 1) {
    for (const factor of factors) {
      const value = factor * 10 ** power;
      if (Math.log10(value) >= low && Math.log10(value) <= high) found.push(value);
    }
  }
  return found;
}
function drawGrid(svg, { low, high, x, y }) {
  const { wide, tall, left, right, top, bottom } = PLOT;
  for (const value of roundValues(low[0], high[0])) {
    svg.append(shape("line", { class: "grid", x1: x(value), x2: x(value), y1: top, y2: tall - bottom }),
               svgText(value >= 1 ? integer(value) : Number(value.toPrecision(1)), x(value), tall - bottom + 15, { "text-anchor": "middle" }));
  }
  for (const value of roundValues(low[1], high[1])) {
    svg.append(shape("line", { class: "grid", x1: left, x2: wide - right, y1: y(value), y2: y(value) }),
               svgText(quantity(value, ""), left - 6, y(value) + 4, { "text-anchor": "end" }));
  }
  svg.append(svgText("FLOPs per byte", (left + wide - right) / 2, tall - 5, { "text-anchor": "middle" }),
             svgText("FLOP/s", left + 6, top + 10));
}
function drawRoof(svg, { low, high, x, y }, { bandwidth, peak, peaks, dtype }, taken) {
  const { wide, right, left } = PLOT, floor = [10 ** low[0], 10 ** low[1]], end = 10 ** high[0];
  const best = peak ?? Math.max(0, ...Object.values(peaks));
  const label = (text, value, kind) => {
    const box = (at) => [wide - right - 7 * text.length, at - 10, wide - right, at + 2];
    const at = [-5, -18, 13].map((away) => y(value) + away).find((base) => !overlaps(box(base), taken));
    if (at === undefined) return;
    taken.push(box(at));
    svg.append(svgText(text, wide - right, at, { "text-anchor": "end", class: `tick ${kind}` }));
  };
  const line = (value, kind) => svg.append(shape("line", { class: kind, y1: y(value), y2: y(value), x2: wide - right,
    x1: bandwidth ? Math.min(wide - right, Math.max(left, x(value / bandwidth))) : left }));
  if (best && bandwidth) {
    const start = Math.max(floor[0], floor[1] / bandwidth), bend = Math.min(end, best / bandwidth);
    svg.append(shape("polyline", { class: "roof", points: [[start, start * bandwidth], [bend, bend * bandwidth]]
      .map(([px, py]) => `${x(px).toFixed(1)},${y(py).toFixed(1)}`).join(" ") }));
    const angle = Math.atan2(y(bend * bandwidth) - y(start * bandwidth), x(bend) - x(start)) * 180 / Math.PI;
    svg.append(shape("text", { class: "tick strong", x: 16, y: -6,
      transform: `translate(${x(start)},${y(start * bandwidth)}) rotate(${angle})` }, quantity(bandwidth, "B/s")));
  }
  if (peak) {
    line(peak, "roof");
    label(`${dtype} ${quantity(peak, "FLOP/s")}`, peak, "strong");
  }
  for (const [name, value] of Object.entries(peaks)) {
    if (name === dtype || value < floor[1] || value > 10 ** high[1]) continue;
    line(value, "other-peak");
    label(`${name} ${quantity(value, "FLOP/s")}`, value, "faint");
  }
}
const overlaps = (box, boxes) => boxes.some((other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3]);
// The name beside its dot, or as near as there is room, with a line to it.
function nameDot(svg, cx, cy, size, name, taken, dots) {
  const long = 6.6 * name.length, { wide, tall, left, right, top, bottom } = PLOT;
  for (let step = 0; step < 40; step += 1) {
    const leftSide = step % 2, away = 13 * Math.ceil(Math.floor(step / 2) / 2) * (Math.floor(step / 2) % 2 ? 1 : -1);
    const start = leftSide ? cx - size - 5 - long : cx + size + 5, base = cy + 4 + away;
    const box = [start, base - 10, start + long, base + 3];
    if (overlaps(box, taken) || overlaps(box, dots) || box[0] < left || box[2] > wide - right || box[1] < top || box[3] > tall - bottom) continue;
    taken.push(box);
    if (Math.abs(away) > 13) svg.append(shape("line", { class: "leader", x1: cx, y1: cy, x2: leftSide ? box[2] + 1 : box[0] - 1, y2: base - 4 }));
    svg.append(shape("text", { class: "dot-name", x: start, y: base }, name));
    return;
  }
}
const rooflineText = (trace, { sum, name, x, y }) => [
  (name ? name + ": " : "") + trace.stages[sum.stage],
  `${quantity(y, "FLOP/s")} at ${Number(x.toPrecision(3))} FLOPs per byte · ${ofCeiling(sum)} of ceiling · ${duration(sum.time)}`];

function kindHead(name, kind) {
  return el("th", { scope: "col" }, name, el("small", {}, kind));
}
function stageTable(trace, sums, ticks) {
  const all = total(sums), rate = (value, sum, unit) => quantity(value / (sum.time / 1e9), unit);
  const cells = (sum) => [
    duration(sum.time), ticks > 1 ? duration(sum.time / ticks) : null, percent(sum.time / all.time), quantity(sum.flops, "FLOP"),
    quantity(sum.read, "B"), quantity(sum.written, "B"), rate(sum.bytes, sum, "B/s"), rate(sum.flops, sum, "FLOP/s"),
    ofCeiling(sum), sum.bound ? trace.bounds[sum.bound] : "n/a", energy(sum.energy),
  ].filter((text) => text !== null).map((text) => el("td", {}, text));
  const heads = [["time", "measured"], ticks > 1 ? ["per tick", "measured"] : null, ["share", "measured"], ["FLOPs", "counted"],
                 ["read", "counted"], ["written", "counted"], ["moved", "counted ÷ measured"], ["computed", "counted ÷ measured"],
                 ["of ceiling", "modelled"], ["bound", "modelled"], ["energy", trace.energy_kind ?? "n/a"]].filter(Boolean);
  const body = [...sums].sort((a, b) => b.time - a.time).map((sum) => el("tr", {},
    el("th", { scope: "row" }, el("i", { class: `bound-${sum.bound}` }), trace.stages[sum.stage]), ...cells(sum)));
  const last = cells(all);
  last[heads.findIndex(([name]) => name === "bound")].textContent = "";
  return el("table", {},
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "stage"), ...heads.map(([name, kind]) => kindHead(name, kind)))),
    el("tbody", {}, ...body), el("tfoot", {}, el("tr", {}, el("th", { scope: "row" }, "all"), ...last)));
}

// Two ticks stage by stage, the largest difference first.
function differenceTable(trace, a, b, width, names) {
  const sums = [stageSums(trace, [a]), stageSums(trace, [b])];
  const rows = trace.stages.map((name, stage) => {
    const [first, second] = sums.map((of) => of.find((sum) => sum.stage === stage));
    if (!first && !second) return null;
    const value = (sum) => (sum ? sum[width] : 0);
    return { name, first: value(first), second: value(second), by: value(second) - value(first),
             bound: (second ?? first).bound };
  }).filter(Boolean).sort((x, y) => Math.abs(y.by || 0) - Math.abs(x.by || 0));
  const most = Math.max(...rows.map((row) => Math.abs(row.by) || 0)) || 1;
  const signed = (value) => (Number.isNaN(value) ? "n/a" : (value > 0 ? "+" : value < 0 ? "−" : "±") + figure(width, Math.abs(value)));
  const kind = WIDTHS.find((one) => one.key === width).kind;
  const node = el("table", { class: "difference" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "stage"), ...names.map((name) => kindHead(name, kind)),
                       kindHead("B − A", kind), el("th", { "aria-hidden": "true" }))),
    el("tbody", {}, ...rows.map((row) => el("tr", { "data-stage": row.name },
      el("th", { scope: "row" }, el("i", { class: `bound-${row.bound}` }), row.name),
      el("td", {}, figure(width, row.first)), el("td", {}, figure(width, row.second)),
      el("td", { class: "by" }, signed(row.by)),
      el("td", { class: "swing", "aria-hidden": "true" }, el("span", { class: row.by > 0 ? "more" : "less",
        style: { width: `${50 * Math.abs(row.by) / most || 0}%` } }))))),
    el("tfoot", {}, el("tr", {}, el("th", { scope: "row" }, "all"), el("td", {}, figure(width, a.sums[width])),
      el("td", {}, figure(width, b.sums[width])), el("td", { class: "by" }, signed(b.sums[width] - a.sums[width])), el("td"))));
  return { node, rows };
}

// The operations of one stage of one layer, from the listing: counted, and their time at the ceilings, which is modelled.
function operationTable(trace, tick, stage, layer, width) {
  const { bandwidth, peak } = trace.meta, listing = trace.listing?.[tick.phase] ?? trace.listing?.[""];
  const rows = (listing ?? []).filter((row) => row[0] === stage && row[1] === layer).map(([, , op, shapes, flops, read, written]) => {
    const bytes = plus(read ?? NaN, written ?? NaN);
    const ideal = bandwidth && peak && Number.isFinite(bytes) ? 1e9 * Math.max(bytes / bandwidth, (flops ?? 0) / peak) : NaN;
    return { op, shapes, flops: flops ?? NaN, read: read ?? NaN, written: written ?? NaN, bytes, time: ideal, energy: NaN };
  });
  if (!rows.length) {
    const sum = stageSums(trace, [tick], (row) => trace.stage[row] === stage && trace.layer[row] === layer)[0];
    return el("p", { class: "notice" }, listing
      ? `The listing has no operations here. ${(sum && awayText(trace, tick, sum)) || "This time is Python's, outside the model."}`
      : trace.listing ? `n/a: the trace has no listing of a ${tick.phase} tick.` : "n/a: the trace has no listing of operations.");
  }
  const most = Math.max(...rows.map((row) => row[width] || 0)) || 1;
  const here = stageSums(trace, [tick], (row) => trace.stage[row] === stage && trace.layer[row] === layer)[0];
  const [flops, bytes] = ["flops", "bytes"].map((key) => rows.reduce((sum, row) => plus(sum, row[key]), NaN));
  const other = !here || (flops === here.flops && bytes === here.bytes) ? null : el("p", { class: "notice" },
    `These are the operations of another ${tick.phase} tick (${quantity(flops, "FLOP")}, ${quantity(bytes, "B")} moved); this one: `
    + `${quantity(here.flops, "FLOP")}, ${quantity(here.bytes, "B")} moved.`);
  return el("div", {}, other, el("table", { class: "operations" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "operation"), el("th", { scope: "col" }, "shapes"),
      kindHead("at ceilings", "modelled"), kindHead("FLOPs", "counted"), kindHead("read", "counted"),
      kindHead("written", "counted"), el("th", { "aria-hidden": "true" }))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, el("th", { scope: "row" }, el("code", {}, row.op)),
      el("td", { class: "shapes" }, row.shapes), el("td", {}, duration(row.time)), el("td", {}, quantity(row.flops, "FLOP")),
      el("td", {}, quantity(row.read, "B")), el("td", {}, quantity(row.written, "B")),
      el("td", { class: "meter", "aria-hidden": "true" }, el("span", { style: { width: `${100 * row[width] / most || 0}%` } })))))));
}
