// The page: what is chosen, what is drawn for it, keys and pointer.

const $ = (id) => document.getElementById(id);
const trace = loadTrace(JSON.parse($("trace").textContent));
WIDTHS[3].kind = trace.energy_kind ?? "n/a";

const LEVELS = ["run", "request", "token", "layer", "op"];
const state = { cell: null, pinned: null, comparing: false, level: "token", layer: null, stage: null, row: null,
                width: "time", phase: trace.phases[0].name };
let view = null;  // what #zoom shows: {move, enter, active}

const middle = (values) => {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  return sorted.length ? sorted[sorted.length >> 1] : NaN;
};
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const say = (lines) => lines.filter(Boolean).join(" ");

// ---- the short answer

const ANSWERS = { decode: "generated token", prefill: "prompt", train: "training step" };
const HEADS = ["Which", "Slowest stage", "Why", "What would make it faster"];

function answerRow(kind, phase, button, cells) {
  return el("tr", { class: `answer ${kind}`, "data-phase": phase }, el("th", { scope: "row" }, ...button),
    ...cells.map(([big, ...lines], index) => el("td", { "data-head": HEADS[index] }, big ? el("p", { class: "big" }, big) : null,
      ...lines.filter(Boolean).map((line) => el("p", {}, line)))));
}
function slowestRow(phase) {
  const cells = trace.cells.filter((cell) => cell.tick.phase === phase.name);
  if (!cells.length) return null;
  const slowest = cells.reduce((best, cell) => (cell.tick.sums.time > best.tick.sums.time ? cell : best));
  const worst = cells.find((cell) => cell.tick === slowest.tick && ofPrompt(cell)) ?? slowest;
  const { tick } = worst, sums = stageSums(trace, [tick]), slow = largest(sums), more = excess(trace, tick, sums);
  const { why, help } = verdict(trace, tick, phase.name, slow, tick.sums.time);
  const others = tick.requests.length - 1;
  const lost = !more ? "" : more.stageOver >= 0.95 * more.over
    ? `All of the ${duration(more.over)} above the median tick are in ${trace.stages[more.stage]}.`
    : `Of the ${duration(more.over)} above the median tick, ${duration(more.stageOver)} are in ${trace.stages[more.stage]}.`;
  const other = more && more.stage !== slow.stage && more.stageOver > 0.5 * more.over
    ? verdict(trace, tick, phase.name, sums.find((sum) => sum.stage === more.stage), tick.sums.time) : null;
  const show = el("button", { type: "button", click: () => { choose(worst); $("tokens").focus(); } }, "Show it");
  const row = answerRow("slowest", phase.name, [`Slowest ${ANSWERS[phase.name] ?? phase.name}`, show], [
    [el("bdi", {}, cellName(worst)),
     duration(tick.sums.time) + (phase.ticks < 3 ? "" : `, ${(tick.sums.time / phase.median).toPrecision(2)} × the median `
       + `of ${plural(phase.ticks, `${phase.name} tick`)} (${duration(phase.median)})`) + ".",
     phase.name === "train" ? "" : `${lineName(worst.line)}, tick ${integer(tick.number)}`
       + (others > 0 ? `, with ${plural(others, "other request")}.` : ".")],
    [trace.stages[slow.stage], `${duration(slow.time)}, ${percent(slow.time / tick.sums.time)} of its tick.`, longestLayer(tick, slow)],
    more?.everywhere
      ? [null, "Nearly every stage took longer than usual, for no more work than usual: most likely another program used the processor.",
         `In the slowest stage: ${why}`]
      : [null, why, say([lost, other?.why])],
    more?.everywhere
      ? [null, `A quiet machine: at its usual time, ${percent(more.over / tick.sums.time)} off the tick. What every tick pays is below.`]
      : [null, help, other && `And ${trace.stages[more.stage]}: ${other.help}`],
  ]);
  return { row, worst };
}
function longestLayer(tick, slow) {
  const rows = [];
  for (let row = tick.first; row < tick.last; row += 1) if (trace.stage[row] === slow.stage && trace.layer[row] >= 0) rows.push(row);
  if (rows.length < 2) return "";
  const longest = rows.reduce((best, row) => (trace.time[row] > trace.time[best] ? row : best));
  return `Over ${rows.length} layers; the longest is layer ${trace.layer[longest]} (${duration(trace.time[longest])}).`;
}
function typicalRow(phase) {
  if (phase.ticks < 3 || phase.name === "prefill") return null;  // prompts differ too much in length for a typical one
  const slow = perTick(largest(phase.stages), phase.ticks), mean = phase.wall / phase.ticks;
  const { why, help } = verdict(trace, null, phase.name, slow, mean);
  const show = el("button", { type: "button", click: () => { state.comparing = false; state.pinned = null; state.phase = phase.name; zoomTo("run"); } }, "Show all");
  return answerRow("typical", phase.name, [`Typical ${ANSWERS[phase.name] ?? phase.name}`, show], [
    ["the average", `${duration(mean)}, over ${plural(phase.ticks, `${phase.name} tick`)}.`],
    [trace.stages[slow.stage], `${duration(slow.time)} per tick, ${percent(slow.time / mean)} of the time.`],
    [null, why],
    [null, help],
  ]);
}
function drawAnswers() {
  const slowest = trace.phases.map(({ name }) => slowestRow(trace.phaseOf[name]));
  const rows = trace.phases.flatMap(({ name }, index) => [slowest[index]?.row, typicalRow(trace.phaseOf[name])]).filter(Boolean);
  $("answers").replaceChildren(el("table", { class: "answers card" },
    el("thead", {}, el("tr", {}, el("td"), ...HEADS.map((head) => el("th", { scope: "col" }, head)))), el("tbody", {}, ...rows)));
  return slowest.find(Boolean).worst;
}

// ---- the tokens

const BLOCK = 200;
const blocks = [], blockOf = [];
const panel = $("tokens");
const typical = Object.fromEntries(WIDTHS.map(({ key }) => [key, middle(trace.cells.map((cell) => cell.tick.sums[key]))]));

function paintCell(node, cell) {
  const times = cell.tick.sums[state.width] / typical[state.width];
  node.style.setProperty("--long", `${clamp(30 * times, 2, 420) || 0}px`);
  node.style.setProperty("--heat", `${Math.round(100 * clamp(0.14 + 0.24 * Math.log2(times), 0.02, 0.85)) || 0}%`);
  node.classList.toggle("cut", 30 * times > 420);
}
function cellNode(cell, before) {
  const node = el("span", {
    class: `token${cell.text === null ? " prompt" : ""}`, role: "option", id: `t${cell.index}`, "aria-selected": "false",
    "aria-label": `${cellName(cell)}, ${duration(cell.tick.sums.time)}`, "data-cell": cell.index, "data-tick": cell.tick.number,
    tip: () => [cellName(cell), say([`${figure(state.width, cell.tick.sums[state.width])} · tick ${integer(cell.tick.number)} ·`,
      cell.tick.phase, cell.tick.requests.length > 1 ? `· ${cell.tick.requests.length} requests` : ""]),
      cell.id === null ? "" : `token ${cell.id} at position ${integer(cell.position)}`],
  }, el("bdi", {}, cell.text !== null ? visible(cell.text) :
    cell.tick.phase === "train" ? integer(cell.tick.number) : cell.tick.phase === "prefill" ? "prompt" : "–"));
  paintCell(node, cell);
  const missing = before && before.position !== null && cell.position !== null ? cell.position - before.position - 1 : 0;
  return trace.thinned && missing > 0 ? [el("span", { class: "gap", title: `${plural(missing, "token")} left out` }, `⋯${missing}`), node] : [node];
}
function fill(block) {
  if (block.filled) return;
  block.filled = true;
  for (let index = block.first; index < block.last; index += 1) {
    const cell = trace.cells[index], before = trace.cells[index - 1];
    block.node.append(...cellNode(cell, before && before.line === cell.line ? before : null));
  }
  block.node.style.minHeight = "";
}
function nodeOf(cell) {
  fill(blocks[blockOf[cell.index]]);
  return $(`t${cell.index}`);
}
function drawTokens() {
  const perLine = Math.max(4, Math.floor(panel.clientWidth / 52));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) { fill(blocks[entry.target.dataset.block]); seen.unobserve(entry.target); }
  }, { root: panel, rootMargin: "400px" });
  for (const line of trace.lines) {
    const time = [...new Set(line.cells.map((cell) => cell.tick))].reduce((sum, tick) => sum + tick.sums.time, 0);
    const tokens = line.cells.filter((cell) => cell.text !== null).length;
    const about = tokens ? plural(tokens, "token") : plural(line.cells.length, "tick");
    const group = el("div", { role: "group", "aria-label": `${lineName(line)}, ${about}` },
      el("p", { class: "request", role: "presentation" }, el("b", {}, el("bdi", {}, visible(line.name))), ` ${about} · ${duration(time)} in its ticks`));
    for (let at = 0; at < line.cells.length; at += BLOCK) {
      const first = line.cells[at].index, last = first + Math.min(BLOCK, line.cells.length - at);
      const node = el("div", { class: "flow", role: "presentation", "data-block": blocks.length,
                               style: { "min-height": `${Math.ceil((last - first) / perLine) * 39}px` } });
      for (let index = first; index < last; index += 1) blockOf[index] = blocks.length;
      blocks.push({ node, first, last, filled: false });
      group.append(node);
      seen.observe(node);
    }
    panel.append(group);
  }
}
function repaintCells() {
  for (const block of blocks) {
    if (!block.filled) continue;
    for (let index = block.first; index < block.last; index += 1) paintCell($(`t${index}`), trace.cells[index]);
  }
}
function showInPanel(node) {
  const box = panel.getBoundingClientRect(), at = node.getBoundingClientRect();
  if (at.top < box.top + 34) panel.scrollTop -= box.top + 40 - at.top;  // below the request's name, which stays on top
  else if (at.bottom > box.bottom - 8) panel.scrollTop += at.bottom - box.bottom + 40;
}
function beside(cell, step) {
  const from = nodeOf(cell).getBoundingClientRect(), x = from.left + from.width / 2;
  let best = cell, line = null, nearest = Infinity;
  for (let index = cell.index + step; index >= 0 && index < trace.cells.length; index += step) {
    const box = nodeOf(trace.cells[index]).getBoundingClientRect();
    if (step > 0 ? box.top < from.bottom - 4 : box.bottom > from.top + 4) continue;
    line ??= box.top;
    if (Math.abs(box.top - line) > 6) break;
    const away = Math.max(box.left - x, x - box.right, 0);
    if (away < nearest) { nearest = away; best = trace.cells[index]; }
  }
  return best;
}

// ---- choosing

function choose(cell, { pin = false, level = "token" } = {}) {
  if (pin && state.cell && cell !== state.cell) { state.pinned = state.cell; state.comparing = true; }
  state.cell = cell;
  state.phase = cell.tick.phase;
  Object.assign(state, { level, layer: null, stage: null, row: null });
  markCells();
  drawZoom();
}
function markCells() {
  for (const node of panel.querySelectorAll('[aria-selected="true"], .held')) {
    node.setAttribute("aria-selected", "false");
    node.classList.remove("held");
  }
  if (state.pinned) nodeOf(state.pinned).classList.add("held");
  const node = nodeOf(state.cell);
  node.setAttribute("aria-selected", "true");
  panel.setAttribute("aria-activedescendant", node.id);
  showInPanel(node);
}
function compare(on = !state.comparing) {
  state.comparing = on;
  state.pinned = on ? state.cell : null;
  state.level = "token";
  markCells();
  drawZoom();
}
function setWidth(key) {
  if (key === "energy" && !trace.energy_kind) { announce("Energy is n/a: this trace has no figures for it."); return; }
  state.width = key;
  for (const node of $("widths").children) node.setAttribute("aria-checked", String(node.dataset.width === key));
  repaintCells();
  drawZoom();
}
const announce = (text) => { $("detail").replaceChildren(el("p", {}, text)); };

// ---- the zoom

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
    `${plural(tick.requests.length, "request")} · ${integer(tick.kv)} tokens in the cache ·`,
    tick.phase === "prefill" && !ofPrompt(cell) ? "it also worked on another request's prompt ·" : "", `${nameOf(state.width)} ${kindOf(state.width)}`]);
}

function rowList(label, count, height, draw, { enter, start, describe }) {
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
  view = { move: (key) => activate(active + steps[key]), enter: () => enter(active), redraw: () => {} };
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
  const place = layer < 0 ? "This part" : `Layer ${layer}`;
  $("detail").replaceChildren(
    el("h3", {}, el("i", { class: `bound-${sum.bound}` }), trace.stages[stage] + (within && layer >= 0 ? ` of layer ${layer}` : ""),
       el("small", {}, partFigures(trace, sum))),
    el("p", {}, within ? reason(trace, part) : why, " ", el("b", {}, "Faster: "), help),
    all.time < part.time + 0.5 ? "" : el("p", { class: "soft" }, within ? `In the whole tick: ${partFigures(trace, all)}`
      : `${place} of it: ${partFigures(trace, part)}`));
}

function drawToken() {
  const { tick } = state.cell;
  title(`The tick of ${cellName(state.cell)}: ${duration(tick.sums.time)}`, tickNote(state.cell));
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
  title(`The operations of ${trace.stages[state.stage]}${where}`, "from the listing of one tick: counted from shapes, not measured");
  $("zoom").append(el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Operations" },
                      operationTable(trace, state.stage, state.layer, state.width)));
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
      a.tick.kv !== b.tick.kv ? `A's tick had ${integer(a.tick.kv)} tokens in the cache, B's ${integer(b.tick.kv)}.` : "",
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
  $("table").replaceChildren(stageTable(trace, sums, ticks));
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

// ---- what stands still

function drawFrame() {
  const { meta } = trace, tokens = trace.tokens.tick.length;
  const ticks = trace.phases.reduce((sum, phase) => sum + phase.ticks, 0), wall = trace.phases.reduce((sum, phase) => sum + phase.wall, 0);
  const decode = trace.phaseOf.decode, onlyTraining = trace.phases.every((phase) => phase.name === "train");
  if (onlyTraining) { $("headline").textContent = "Where every step's time went"; $("tokens-title").firstChild.textContent = "Steps "; }
  $("overview").replaceChildren(el("bdi", {}, visible(meta.model)), ": " + [
    tokens && !trace.thinned ? `${plural(tokens, "token")} for ${plural(trace.lines.length, "request")}` : null,
    `${plural(ticks, onlyTraining ? "training step" : "tick")} in ${duration(wall)}`,
    decode ? `${duration(decode.median)} for a typical decode tick` : null, meta.dtype].filter(Boolean).join(" · "));
  if (trace.thinned) {
    $("thinned").hidden = false;
    $("thinned").textContent = `This page holds ${integer(trace.thinned.kept)} of the trace's ${integer(trace.thinned.of)} ticks: the slowest ones, `
      + "and evenly spaced others. Totals, medians and the table of the whole run are of all of them; ⋯ marks tokens left out.";
  }
  $("tokens-note").textContent = `bar: time of the ${onlyTraining ? "step" : "tick that gave the token"}, measured; warmer is slower than usual`;
  $("widths").replaceChildren(...WIDTHS.map(({ key, name, kind }, index) => el("button", {
    type: "button", role: "radio", "data-width": key, "aria-checked": String(key === state.width),
    "aria-disabled": key === "energy" && !trace.energy_kind ? "true" : null, click: () => setWidth(key),
  }, el("kbd", {}, String(index + 1)), ` ${name} `, el("small", {}, kind))));
  $("legend").replaceChildren(el("li", {}, "bound by"), ...[1, 2, 3, 0].map((bound) => el("li", {}, el("i", { class: `bound-${bound}` }),
    bound ? trace.bounds[bound] : "n/a")));
  $("machine").textContent = [meta.machine, meta.timing, meta.energy].filter(Boolean).join(" · ");
  const box = (name, value) => el("div", {}, el("dt", {}, name), el("dd", { class: "value" }, value), el("dd", { class: "kind" }, value === "n/a" ? "" : "measured"));
  $("ceilings").replaceChildren(box("read bandwidth", quantity(meta.bandwidth ?? NaN, "B/s")),
    ...Object.entries(meta.peaks).map(([name, value]) => box(name, quantity(value, "FLOP/s"))));
  $("started").textContent = meta.started ? `started ${visible(meta.started)}` : "";
  $("compare").addEventListener("click", () => compare());
  $("help-button").addEventListener("click", () => $("help").showModal());
}

// ---- pointer and keys

panel.addEventListener("click", (event) => {
  const node = event.target.closest(".token");
  if (node) choose(trace.cells[node.dataset.cell], { pin: event.shiftKey && !state.comparing });
});
panel.addEventListener("mousedown", (event) => { if (event.shiftKey) event.preventDefault(); });  // no text selection
panel.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { index } = state.cell, last = trace.cells.length - 1;
  const next = { ArrowLeft: () => index - 1, ArrowRight: () => index + 1, Home: () => 0, End: () => last, PageUp: () => index - 50,
                 PageDown: () => index + 50, ArrowUp: () => beside(state.cell, -1).index, ArrowDown: () => beside(state.cell, 1).index }[event.key];
  if (next) { event.preventDefault(); choose(trace.cells[clamp(next(), 0, last)], { pin: event.shiftKey && !state.comparing }); }
  if (event.key === "Enter") { event.preventDefault(); state.level = "token"; drawZoom({ focus: true }); }
});
$("zoom").addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !event.target.matches('[role="listbox"]')) return;
  if (/^(Arrow|Page|Home|End)/.test(event.key)) { event.preventDefault(); view.move(event.key); }
  if (event.key === "Enter") { event.preventDefault(); view.enter(); }
});
document.addEventListener("keydown", (event) => {
  $("tip").hidden = true;
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  if (event.key >= "1" && event.key <= "4") setWidth(WIDTHS[Number(event.key) - 1].key);
  else if (event.key === "c") compare();
  else if (event.key === "?") $("help").showModal();
  else if (event.key === "Escape") zoomOut();
});
document.addEventListener("pointermove", (event) => {
  let node = event.target;
  while (node && !tips.has(node)) node = node.parentElement;
  const tip = $("tip");
  tip.hidden = !node || event.pointerType === "touch";
  if (tip.hidden) return;
  tip.replaceChildren(...tips.get(node)().filter(Boolean).map((line, index) => el(index ? "p" : "b", {}, el("bdi", {}, line))));
  const box = tip.getBoundingClientRect();
  tip.style.left = `${clamp(event.clientX + 14, 4, innerWidth - box.width - 4)}px`;
  tip.style.top = `${event.clientY + 18 + box.height > innerHeight ? event.clientY - box.height - 10 : event.clientY + 18}px`;
});
document.addEventListener("pointerleave", () => { $("tip").hidden = true; });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => view.redraw());
addEventListener("resize", () => view.redraw());

drawFrame();
drawTokens();
choose(drawAnswers());
document.body.dataset.ready = "true";
