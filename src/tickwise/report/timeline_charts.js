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
  const parts = [duration(sum.time), quantity(sum.flops, "FLOP"), `read ${quantity(sum.read, "B")}`,
                 `wrote ${quantity(sum.written, "B")}`, `${percent(sum.share)} of ceiling`];
  if (Number.isFinite(sum.energy)) parts.push(energy(sum.energy));
  return parts.join(" · ");
}

function rowSum(trace, row) {
  const sum = emptySum(trace.stage[row]);
  addRow(sum, trace, row);
  return finish(sum);
}

// One lane per stage; parts stand one after another in the order in which they ran, `full` is the amount that fills a lane.
function lanes(trace, tick, { width, keep = () => true, full = null, id = "part", label }) {
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
      }, wide && layer >= 0 ? String(layer) : null);
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

// FLOP/s over FLOPs per byte, both logarithmic, under what this machine was measured to do. Returns the points' texts.
function roofline(trace, series) {
  const { bandwidth, peak, peaks, dtype } = trace.meta;
  const wide = 480, tall = 330, left = 46, right = 12, top = 14, bottom = 40;
  const points = series.flatMap(({ sums, name, hollow }) => sums.filter((sum) => sum.flops > 0 && sum.bytes > 0).map((sum) => ({
    sum, name, hollow, x: sum.flops / sum.bytes, y: sum.flops / (sum.time / 1e9),
    size: 5 + 9 * Math.sqrt(sum.time / total(sums).time),
  })));
  const absent = [...new Set(series.flatMap(({ sums }) => sums.filter((sum) => !(sum.flops > 0 && sum.bytes > 0))
    .map((sum) => trace.stages[sum.stage])))];
  const best = Math.max(0, ...Object.values(peaks));
  if (!points.length) return { node: el("p", { class: "notice" }, "No stage here has counted FLOPs and bytes."), points, absent };
  const ridge = bandwidth && best ? [best / bandwidth] : [];
  const log = Math.log10, xs = [...points.map((point) => point.x), ...ridge], ys = [...points.map((point) => point.y)];
  if (best) ys.push(best);
  const low = [Math.floor(log(Math.min(...xs)) - 0.25), Math.floor(log(Math.min(...ys)) - 0.15)];
  const high = [Math.ceil(log(Math.max(...xs)) + 0.25), Math.ceil(log(Math.max(...ys)) + 0.1)];
  const x = (value) => left + (log(value) - low[0]) / (high[0] - low[0]) * (wide - left - right);
  const y = (value) => top + (high[1] - log(value)) / (high[1] - low[1]) * (tall - top - bottom);
  const svg = shape("svg", { viewBox: `0 0 ${wide} ${tall}`, role: "img", tabindex: "0", id: "roofline-plot",
    "aria-label": `Roofline of ${points.length} stages. Arrow keys read the values.` });
  const text = (value, at, props = {}) => shape("text", { class: "tick", x: at[0], y: at[1], ...props }, value);
  for (let power = low[0]; power <= high[0]; power += 1) {
    svg.append(shape("line", { class: "grid", x1: x(10 ** power), x2: x(10 ** power), y1: top, y2: tall - bottom }),
      text(power >= 0 && power < 6 ? integer(10 ** power) : Number((10 ** power).toPrecision(3)), [x(10 ** power), tall - bottom + 17],
           { "text-anchor": "middle" }));
  }
  for (let power = low[1]; power <= high[1]; power += 1) {
    svg.append(shape("line", { class: "grid", x1: left, x2: wide - right, y1: y(10 ** power), y2: y(10 ** power) }),
      text(quantity(10 ** power, ""), [left - 6, y(10 ** power) + 4], { "text-anchor": "end" }));
  }
  svg.append(text("FLOPs per byte", [(left + wide - right) / 2, tall - 6], { "text-anchor": "middle" }),
             text("FLOP/s", [left, top - 3], { "text-anchor": "end" }));
  const roof = (flops, kind) => {
    const from = 10 ** low[0], to = 10 ** high[0];
    const bend = bandwidth ? Math.min(to, Math.max(from, flops / bandwidth)) : from;
    const start = bandwidth ? Math.min(flops, bandwidth * from) : flops;
    const clip = Math.max(start, 10 ** low[1]);
    const begin = bandwidth ? Math.max(from, clip / bandwidth) : from;
    svg.append(shape("polyline", { class: kind, points: [[begin, clip], [bend, Math.min(flops, bandwidth ? bandwidth * bend : flops)], [to, flops]]
      .map(([px, py]) => `${x(px).toFixed(1)},${y(py).toFixed(1)}`).join(" ") }));
  };
  for (const [name, value] of Object.entries(peaks)) {
    if (name === dtype || value < 10 ** low[1]) continue;
    svg.append(shape("line", { class: "other-peak", x1: bandwidth ? Math.max(left, x(value / bandwidth)) : left, x2: wide - right, y1: y(value), y2: y(value) }),
               text(`${name} ${quantity(value, "FLOP/s")}`, [wide - right - 2, y(value) - 4], { "text-anchor": "end", class: "tick faint" }));
  }
  if (peak) {
    roof(peak, "roof");
    svg.append(text(`${dtype} ${quantity(peak, "FLOP/s")}`, [wide - right - 2, y(peak) - 5], { "text-anchor": "end", class: "tick strong" }));
  } else if (bandwidth && best) roof(best, "roof");
  if (bandwidth) {
    const at = Math.max(10 ** low[0], 10 ** low[1] / bandwidth) * 1.3;
    const slope = Math.atan2(y(10 ** 0) - y(10 ** 1), x(10 ** 1) - x(10 ** 0)) * 180 / Math.PI;
    svg.append(shape("text", { class: "tick strong", transform: `translate(${x(at)},${y(at * bandwidth) - 7}) rotate(${-slope})` },
                     quantity(bandwidth, "B/s")));
  }
  const taken = [];
  points.sort((a, b) => b.sum.time - a.sum.time);
  for (const [index, point] of points.entries()) {
    const cx = x(point.x), cy = y(point.y), name = trace.stages[point.sum.stage];
    const dot = shape("circle", { class: `dot bound-${point.sum.bound}${point.hollow ? " hollow" : ""}`, cx, cy,
                                  r: point.size, "data-stage": name, "data-point": index });
    tips.set(dot, () => rooflineText(trace, point));
    svg.append(dot);
    if (point.hollow) continue;
    let at = cy + 4;
    const flip = cx > wide - 90;
    const clash = () => taken.some(([tx, ty]) => Math.abs(tx - cx) < 74 && Math.abs(ty - at) < 13);
    for (let step = 1; clash() && step < 12; step += 1) at = cy + 4 + (step % 2 ? 1 : -1) * Math.ceil(step / 2) * 13;
    if (clash() || at > tall - bottom - 2 || at < top) continue;
    taken.push([cx, at]);
    svg.append(text(name, [flip ? cx - point.size - 4 : cx + point.size + 4, at], { class: "dot-name", "text-anchor": flip ? "end" : "start" }));
  }
  return { node: svg, points, absent };
}
const rooflineText = (trace, { sum, name, x, y }) => [
  (name ? name + ": " : "") + trace.stages[sum.stage],
  `${quantity(y, "FLOP/s")} at ${Number(x.toPrecision(3))} FLOPs per byte · ${percent(sum.share)} of ceiling · ${duration(sum.time)}`];

function kindHead(name, kind) {
  return el("th", { scope: "col" }, name, el("small", {}, kind));
}
function stageTable(trace, sums, ticks) {
  const all = total(sums), rate = (value, sum, unit) => quantity(value / (sum.time / 1e9), unit);
  const cells = (sum) => [
    duration(sum.time), ticks > 1 ? duration(sum.time / ticks) : null, percent(sum.time / all.time), quantity(sum.flops, "FLOP"),
    quantity(sum.read, "B"), quantity(sum.written, "B"), rate(sum.bytes, sum, "B/s"), rate(sum.flops, sum, "FLOP/s"),
    percent(sum.share), sum.bound ? trace.bounds[sum.bound] : "n/a", energy(sum.energy),
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
function operationTable(trace, stage, layer, width) {
  const { bandwidth, peak } = trace.meta;
  const rows = (trace.listing ?? []).filter((row) => row[0] === stage && row[1] === layer).map(([, , op, shapes, flops, read, written]) => {
    const bytes = plus(read ?? NaN, written ?? NaN);
    const ideal = bandwidth && peak && Number.isFinite(bytes) ? 1e9 * Math.max(bytes / bandwidth, (flops ?? 0) / peak) : NaN;
    return { op, shapes, flops: flops ?? NaN, read: read ?? NaN, written: written ?? NaN, bytes, time: ideal, energy: NaN };
  });
  if (!rows.length) {
    return el("p", { class: "notice" }, trace.listing
      ? "The listing has no operations here: this is time of the host, outside the model."
      : "n/a: this page was made without a listing of operations.");
  }
  const most = Math.max(...rows.map((row) => row[width] || 0)) || 1;
  return el("table", { class: "operations" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "operation"), el("th", { scope: "col" }, "shapes"),
      kindHead("at ceilings", "modelled"), kindHead("FLOPs", "counted"), kindHead("read", "counted"),
      kindHead("written", "counted"), el("th", { "aria-hidden": "true" }))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, el("th", { scope: "row" }, el("code", {}, row.op)),
      el("td", { class: "shapes" }, row.shapes), el("td", {}, duration(row.time)), el("td", {}, quantity(row.flops, "FLOP")),
      el("td", {}, quantity(row.read, "B")), el("td", {}, quantity(row.written, "B")),
      el("td", { class: "meter", "aria-hidden": "true" }, el("span", { style: { width: `${100 * row[width] / most || 0}%` } }))))));
}
