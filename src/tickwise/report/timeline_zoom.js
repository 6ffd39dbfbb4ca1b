// What is chosen, closer and closer: run, request, token, layer, operations; or two tokens side by side.

function drawZoom({ focus = false } = {}) {
  const had = focus || $("zoom").contains(document.activeElement);
  $("zoom").replaceChildren();
  $("detail").replaceChildren();
  $("compare").setAttribute("aria-pressed", String(state.comparing));
  document.body.dataset.level = state.comparing ? "compare" : state.level;
  drawPath();
  if (state.comparing) drawComparison();
  else ({ run: drawRun, request: drawRequest, token: drawToken, layer: drawLayer, op: drawOperations })[state.level]();
  drawScope();
  if (had) $("zoom").querySelector('[tabindex="0"]')?.focus({ preventScroll: true });
}
function crumbs() {
  const { cell } = state, all = [["run", "Run"], ["request", lineName(cell.line)],
                                 ["token", el("bdi", {}, cellName(cell))]];
  if (state.layer !== null) all.push(["layer", state.layer < 0 ? "Outside the layers" : `Layer ${state.layer}`]);
  if (state.stage !== null) all.push(["op", `Operations of ${trace.stages[state.stage]}`]);
  return all;
}
function drawPath() {
  const now = state.comparing ? "compare" : state.level;
  $("path").replaceChildren(...crumbs().slice(0, LEVELS.indexOf(state.level) + 1).flatMap(([level, name], index) => [
    index ? el("span", { "aria-hidden": "true" }, "›") : null,
    el("button", { type: "button", "data-level": level, "aria-current": level === now ? "true" : null,
                   click: () => { state.comparing = false; state.pinned = null; zoomTo(level); markCells(); } },
       name),
  ]).filter(Boolean), state.comparing ? el("span", { class: "now" }, "Comparison") : "");
}
function zoomTo(level) {
  state.level = level;
  if (LEVELS.indexOf(level) < 4) state.stage = null;
  if (LEVELS.indexOf(level) < 3) state.layer = null;
  drawZoom({ focus: true });
}
function zoomOut() {
  if (state.comparing) { compare(false); return; }
  const at = LEVELS.indexOf(state.level);
  if (at > 0) zoomTo(LEVELS[at - 1]);
}
function title(text, note = "") {
  $("zoom-title").replaceChildren(el("bdi", {}, text), " ", el("small", {}, note));
}
const kindOf = (key) => WIDTHS.find((width) => width.key === key).kind;
const nameOf = (key) => WIDTHS.find((width) => width.key === key).name;
function tickNote(cell) {
  const { tick } = cell;
  return say([`tick ${integer(tick.number)} ·`, `${tick.phase} ·`, tick.phase === "train" ? `batch ${integer(tick.batch)} ·` :
    `${plural(tick.requests.length, "request")} · ${integer(tick.kv)} tokens in view ·`,
    tick.phase === "prefill" && !ofPrompt(cell) ? "it also worked on another request's prompt ·" : "",
    tick.interruptions ? `${processor(tick)} ·` : "", `${nameOf(state.width)} ${kindOf(state.width)}`]);
}

function rowList(label, count, height, draw, { enter, start, describe, cell }) {
  const box = el("div", { class: "rows", role: "listbox", tabindex: "0", "aria-label": label });
  box.style.height = `${Math.min(count * height, 380) + 2}px`;
  $("zoom").append(box);
  let active = -1;
  const list = longList(box, count, height, (index) => {
    const node = draw(index);
    node.id = `row-${index}`;
    node.classList.add("row");
    node.setAttribute("role", "option");
    node.setAttribute("aria-selected", String(index === active));
    node.addEventListener("click", () => enter(index));
    return node;
  });
  const activate = (index) => {
    $(`row-${active}`)?.setAttribute("aria-selected", "false");
    active = clamp(index, 0, count - 1);
    list.show(active)?.setAttribute("aria-selected", "true");
    box.setAttribute("aria-activedescendant", `row-${active}`);
    describe(active);
  };
  list.paint();
  activate(start);
  const steps = { ArrowUp: -1, ArrowDown: 1, ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -count, End: count };
  view = { move: (key) => activate(active + steps[key]), enter: () => enter(active), cell: cell && (() => cell(active)), redraw: () => {} };
}

function drawRun() {
  title("The run, request by request", `width is ${nameOf(state.width)}, ${kindOf(state.width)}; a dark edge on top marks ticks with a prompt`);
  const strips = [];
  rowList("Requests", trace.lines.length, 46, (index) => {
    const line = trace.lines[index], { canvas, draw } = runStrip(trace, line, state.width);
    requestAnimationFrame(draw);
    strips.push(draw);
    return el("div", { class: "request-row" }, el("span", { class: "lane-name" }, el("bdi", {}, visible(line.name))), canvas,
              el("span", { class: "lane-value" }, requestFigures(line)));
  }, {
    start: trace.lines.indexOf(state.cell.line),
    enter: (index) => { if (state.cell.line !== trace.lines[index]) { state.cell = trace.lines[index].cells[0]; markCells(); } zoomTo("request"); },
    describe: (index) => announce(say([`${lineName(trace.lines[index])}:`, requestFigures(trace.lines[index]) + ".", "Enter shows its tokens."])),
  });
  view.redraw = () => strips.forEach((draw) => draw());
}
function requestFigures(line) {
  const tokens = line.cells.filter((cell) => cell.text !== null);
  const ticks = [...new Set(line.cells.map((cell) => cell.tick))], time = ticks.reduce((sum, tick) => sum + tick.sums.time, 0);
  if (!tokens.length) return `${plural(ticks.length, "tick")} in ${duration(time)}`;
  return `${plural(tokens.length, "token")} in ${duration(time)}`;
}

function drawRequest() {
  const { line } = state.cell;
  title(`${lineName(line)}, ${line.cells[0].tick.phase === "train" ? "step by step" : "token by token"}`, `width is ${nameOf(state.width)}, ${kindOf(state.width)}; each bar is a tick and its stages`);
  const values = line.cells.map((cell) => cell.tick.sums[state.width]);
  const full = Math.min(values.reduce((most, value) => (value > most ? value : most), 0), 5 * middle(values)) || 1;
  rowList("Tokens of the request", line.cells.length, 24, (index) => {
    const { tick } = line.cells[index];
    return el("div", { class: "token-row" }, el("span", { class: "lane-name" }, el("bdi", {}, cellName(line.cells[index]))),
              stackedBar(trace, tick, state.width, full), el("span", { class: "lane-value" }, figure(state.width, tick.sums[state.width])));
  }, {
    start: Math.max(0, line.cells.indexOf(state.cell)),
    cell: (index) => line.cells[index],
    enter: (index) => { choose(line.cells[index]); drawZoom({ focus: true }); },
    describe: (index) => {
      const cell = line.cells[index], sums = stageSums(trace, [cell.tick]), slow = largest(sums);
      announce(say([`${cellName(cell)}: ${duration(cell.tick.sums.time)}, slowest in ${trace.stages[slow.stage]}.`, reason(trace, slow)]));
    },
  });
}

// Lanes that the arrow keys walk: up and down between stages, left and right between layers.
function walkable(drawn, { enter, start }) {
  const { items, node } = drawn;
  let lane = 0, at = 0;
  const activate = (nextLane, nextAt) => {
    items[lane][at].node.setAttribute("aria-selected", "false");
    lane = clamp(nextLane, 0, items.length - 1);
    at = clamp(nextAt, 0, items[lane].length - 1);
    const part = items[lane][at];
    part.node.setAttribute("aria-selected", "true");
    node.setAttribute("aria-activedescendant", part.node.id);
    state.row = part.row;
    describePart(part.row);
  };
  const nearest = (parts, middleOf) => parts.reduce((best, part, index) =>
    (Math.abs(part.middle - middleOf) < Math.abs(parts[best].middle - middleOf) ? index : best), 0);
  items.forEach((parts, laneIndex) => {
    parts.forEach((part, index) => part.node.addEventListener("click", () => { activate(laneIndex, index); enter(part.row); }));
    node.querySelectorAll(".lane")[laneIndex].querySelector(".lane-name").addEventListener("click", () => activate(laneIndex, 0));
  });
  const found = items.findIndex((parts) => parts.some((part) => part.row === start));
  if (found >= 0) activate(found, items[found].findIndex((part) => part.row === start));
  view = {
    move(key) {
      if (key === "ArrowLeft") activate(lane, at - 1);
      if (key === "ArrowRight") activate(lane, at + 1);
      if (key === "Home") activate(lane, 0);
      if (key === "End") activate(lane, items[lane].length - 1);
      const step = { ArrowUp: -1, ArrowDown: 1 }[key];
      if (step && items[lane + step]) activate(lane + step, nearest(items[lane + step], items[lane][at].middle));
    },
    enter: () => enter(items[lane][at].row),
    redraw: () => {},
  };
}
function longestRow(tick, keep = () => true) {
  const sums = stageSums(trace, [tick], keep), { stage } = largest(sums);
  let best = -1;
  for (let row = tick.first; row < tick.last; row += 1) {
    if (keep(row) && trace.stage[row] === stage && (best < 0 || trace.time[row] > trace.time[best])) best = row;
  }
  return best;
}
function describePart(row) {
  const { tick } = state.cell, stage = trace.stage[row], layer = trace.layer[row];
  const all = stageSums(trace, [tick], (other) => trace.stage[other] === stage)[0], part = rowSum(trace, row);
  const within = state.level === "layer" || state.level === "op", sum = within ? part : all;
  const { why, help } = verdict(trace, tick, tick.phase, all, tick.sums.time);
  const away = awayText(trace, tick, sum);
  const place = layer < 0 ? "This part" : `Layer ${layer}`;
  $("detail").replaceChildren(
    el("h3", {}, el("i", { class: `bound-${sum.bound}` }), trace.stages[stage] + (within && layer >= 0 ? ` of layer ${layer}` : ""),
       el("small", {}, partFigures(trace, sum))),
    el("p", {}, away || (within ? reason(trace, part) : why), " ", el("b", {}, "Faster: "), away ? faster(tick.cause, help) : help),
    all.time < part.time + 0.5 ? "" : el("p", { class: "soft" }, within ? `In the whole tick: ${partFigures(trace, all)}`
      : `${place} of it: ${partFigures(trace, part)}`));
}

function drawToken() {
  const { tick } = state.cell;
  const name = state.cell.text === null && tick.phase === "decode" ? `Tick ${integer(tick.number)}` : `The tick of ${cellName(state.cell)}`;
  title(`${name}: ${duration(tick.sums.time)}`, tickNote(state.cell));
  const drawn = lanes(trace, tick, { width: state.width, label: "Stages of the tick" });
  $("zoom").append(drawn.node);
  walkable(drawn, { start: state.row ?? longestRow(tick), enter: (row) => { state.layer = trace.layer[row]; state.row = row; zoomTo("layer"); } });
}
function drawLayer() {
  const { tick } = state.cell, keep = (row) => trace.layer[row] === state.layer;
  const all = total(stageSums(trace, [tick], keep));
  title(`${state.layer < 0 ? "Outside the layers" : `Layer ${state.layer}`}: ${duration(all.time)}, ${percent(all.time / tick.sums.time)} of the tick`, tickNote(state.cell));
  const drawn = lanes(trace, tick, { width: state.width, keep, numbered: false, label: "Stages of the layer" });
  $("zoom").append(drawn.node);
  walkable(drawn, {
    start: state.row !== null && keep(state.row) ? state.row : longestRow(tick, keep),
    enter: (row) => { state.stage = trace.stage[row]; state.row = row; zoomTo("op"); },
  });
}
function drawOperations() {
  const where = state.layer < 0 ? "" : ` of layer ${state.layer}`;
  title(`The operations of ${trace.stages[state.stage]}${where}`, `from the listing of a ${state.cell.tick.phase} tick: counted from shapes, not measured`);
  $("zoom").append(el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Operations" },
                      operationTable(trace, state.cell.tick, state.stage, state.layer, state.width)));
  if (state.row !== null) describePart(state.row);
  view = { move: () => {}, enter: () => {}, redraw: () => {} };
}

function drawComparison() {
  const { pinned: a, cell: b } = state, full = Math.max(a.tick.sums[state.width] || 0, b.tick.sums[state.width] || 0);
  const difference = b.tick.sums[state.width] - a.tick.sums[state.width];
  title(`${cellName(a)} beside ${cellName(b)}`, `${nameOf(state.width)}, ${kindOf(state.width)}; both to one scale`);
  const side = (letter, cell, id) => {
    const drawn = lanes(trace, cell.tick, { width: state.width, full, id, label: `Stages of ${letter}` });
    return { drawn, node: el("div", { class: "side" }, el("h3", {}, el("b", {}, letter), " ", el("bdi", {}, cellName(cell)),
      el("small", {}, figure(state.width, cell.tick.sums[state.width]) + " · " + tickNote(cell))), drawn.node) };
  };
  const left = side("A", a, "a"), right = side("B", b, "part");
  left.drawn.node.removeAttribute("tabindex");
  $("zoom").append(el("div", { class: "sides" }, left.node, right.node));
  walkable(right.drawn, { start: longestRow(b.tick), enter: (row) => {
    Object.assign(state, { comparing: false, pinned: null, layer: trace.layer[row], row });
    markCells();
    zoomTo("layer");
  } });
  const table = differenceTable(trace, a.tick, b.tick, state.width, ["A", "B"]);
  const most = table.rows[0];
  const verdict = a === b ? "Choose the second token: click it, or move to it with the arrow keys." :
    a.tick === b.tick ? "Both tokens came from the same tick, so their stages are the same." :
    Number.isNaN(difference) ? "n/a: not both ticks have this figure." : say([
      `B ${state.width === "time" ? "took" : "has"} ${figure(state.width, Math.abs(difference))} ${difference < 0 ? "less" : "more"} than A;`,
      `the largest difference is ${most.name}: ${figure(state.width, most.first)} in A, ${figure(state.width, most.second)} in B.`,
      a.tick.phase !== b.tick.phase ? `A is ${a.tick.phase}, B is ${b.tick.phase}.` : "",
      a.tick.requests.length !== b.tick.requests.length ? `A's tick served ${plural(a.tick.requests.length, "request")}, B's ${b.tick.requests.length}.` : "",
      a.tick.kv !== b.tick.kv ? `A's tick had ${integer(a.tick.kv)} tokens in view, B's ${integer(b.tick.kv)}.` : "",
    ]);
  $("detail").replaceChildren(el("p", { class: "verdict" }, verdict), el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Difference by stage" }, table.node));
}

// ---- roofline and table of what is in view

function scope() {
  const { tick, line } = state.cell;
  if (state.comparing) return { sums: stageSums(trace, [tick]), ticks: 1, name: "of B's tick" };
  if (state.level === "token") return { sums: stageSums(trace, [tick]), ticks: 1, name: "of this tick" };
  if (state.level === "layer" || state.level === "op") {
    return { sums: stageSums(trace, [tick], (row) => trace.layer[row] === state.layer), ticks: 1,
             name: state.layer < 0 ? "outside the layers" : `of layer ${state.layer}` };
  }
  const within = state.level === "run" ? trace.phases.map((phase) => phase.name) : [...new Set(line.cells.map((cell) => cell.tick.phase))];
  if (!within.includes(state.phase)) state.phase = within[0];
  if (state.level === "run") {
    const phase = trace.phaseOf[state.phase];
    return { sums: phase.stages, ticks: phase.ticks, name: `of all ${plural(phase.ticks, `${phase.name} tick`)}`, within };
  }
  const ticks = [...new Set(line.cells.map((cell) => cell.tick))].filter((tick) => tick.phase === state.phase);
  return { sums: stageSums(trace, ticks), ticks: ticks.length, name: `of this request's ${plural(ticks.length, `${state.phase} tick`)}`, within };
}
function drawScope() {
  const { sums, ticks, name, within } = scope();
  $("table-title").textContent = `Stages ${name}`;
  const unknown = sums.filter((sum) => !Number.isFinite(sum.energy)).map((sum) => trace.stages[sum.stage]);
  $("table").replaceChildren(stageTable(trace, sums, ticks), trace.energy_kind && unknown.length
    ? el("p", { class: "soft" }, `Energy of ${unknown.join(", ")} is not known, and not in the sum.`) : "");
  $("phases").hidden = !within || within.length < 2;
  $("phases").replaceChildren(...(within ?? []).map((phase) => el("button", { type: "button", role: "radio", "data-phase": phase,
    "aria-checked": String(phase === state.phase), click: () => { state.phase = phase; drawScope(); } }, phase)));
  const series = state.comparing && state.pinned !== state.cell
    ? [{ sums: stageSums(trace, [state.pinned.tick]), name: "A", hollow: true }, { sums, name: "B" }] : [{ sums, name: "" }];
  const { node, points, absent } = roofline(trace, series);
  $("roofline").replaceChildren(node, absent.length ? el("p", { class: "soft" }, `Not on it, having no counted FLOPs or bytes: ${absent.join(", ")}.`) : "");
  $("roofline-title").textContent = `Roofline ${name}`;
  const out = $("roofline-values");
  out.textContent = state.comparing && series.length > 1 ? "Rings are A, discs are B." : "";
  let at = -1;
  const read = (index) => {
    node.querySelectorAll(".dot").forEach((dot) => dot.classList.toggle("now", Number(dot.dataset.point) === index));
    at = index;
    out.textContent = index < 0 ? "" : rooflineText(trace, points[index]).join(": ");
  };
  node.addEventListener("pointerover", (event) => { const dot = event.target.closest(".dot"); if (dot) read(Number(dot.dataset.point)); });
  node.addEventListener("keydown", (event) => {
    const next = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: points.length - 1 }[event.key];
    if (next === undefined || !points.length) return;
    event.preventDefault();
    read(clamp(next, 0, points.length - 1));
  });
}
