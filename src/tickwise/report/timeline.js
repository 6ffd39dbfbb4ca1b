// The page: its state, the tokens, what stands still, pointer and keys. It comes last and starts everything.

const $ = (id) => document.getElementById(id);
const trace = loadTrace(JSON.parse($("trace").textContent));
WIDTHS[3].kind = trace.energy_kind ?? "n/a";

const LEVELS = ["run", "request", "token", "layer", "op"];
const state = { cell: null, pinned: null, comparing: false, level: "token", layer: null, stage: null, row: null,
                width: "time", phase: trace.phases[0].name };
let view = null;  // what #zoom shows: {move, enter, redraw}

const middle = (values) => {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  return sorted.length ? sorted[sorted.length >> 1] : NaN;
};
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const say = (lines) => lines.filter(Boolean).join(" ");

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
  if (on) {
    if (view.cell) state.cell = view.cell();
    panel.focus({ preventScroll: true });  // the arrows choose the second token
  }
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
  noteWidth();
  repaintCells();
  drawZoom();
}
function noteWidth() {
  const onlyTraining = trace.phases.every((phase) => phase.name === "train");
  $("tokens-note").textContent = `bar: ${nameOf(state.width)} of the ${onlyTraining ? "step" : "tick that gave the token"}, ${kindOf(state.width)}; `
    + `warmer is ${state.width === "time" ? "slower" : "more"} than usual`
    + (trace.cells.some((cell) => cell.text === null && cell.tick.phase === "decode") ? "; –: a tick whose text was settled later, as in beam search" : "");
}
const announce = (text) => { $("detail").replaceChildren(el("p", {}, text)); };

// ---- what stands still

function drawFrame() {
  const { meta } = trace, tokens = trace.tokens.tick.length;
  const ticks = trace.phases.reduce((sum, phase) => sum + phase.ticks, 0), wall = trace.phases.reduce((sum, phase) => sum + phase.wall, 0);
  const decode = trace.phaseOf.decode, onlyTraining = trace.phases.every((phase) => phase.name === "train");
  if (onlyTraining) { $("headline").textContent = "Where every step's time went"; $("tokens-title").firstChild.textContent = "Steps "; }
  $("overview").replaceChildren(el("bdi", {}, visible(meta.model)), ": " + [
    tokens && !trace.thinned ? `${plural(tokens, "token")} for ${plural(trace.lines.length, "request")}` : null,
    `${plural(ticks, onlyTraining ? "training step" : "tick")} in ${duration(wall)}`,
    trace.between ? `${duration(trace.between.sum)} more between ticks (${duration(trace.between.median)} each, in no row)` : null,
    decode ? `${duration(decode.typical.wall)} for a typical decode tick` : null, meta.dtype].filter(Boolean).join(" · "));
  if (trace.thinned) {
    $("thinned").hidden = false;
    $("thinned").textContent = `This page holds ${integer(trace.thinned.kept)} of the trace's ${integer(trace.thinned.of)} ticks: the slowest ones, `
      + "and evenly spaced others. Totals, medians and the table of the whole run are of all of them; ⋯ marks tokens left out.";
  }
  noteWidth();
  $("widths").replaceChildren(...WIDTHS.map(({ key, name, kind }, index) => el("button", {
    type: "button", role: "radio", "data-width": key, "aria-checked": String(key === state.width),
    "aria-disabled": key === "energy" && !trace.energy_kind ? "true" : null, click: () => setWidth(key),
  }, el("kbd", {}, String(index + 1)), ` ${name} `, el("small", {}, kind))));
  $("legend").replaceChildren(el("li", {}, "bound by"), ...[1, 2, 3, 0].map((bound) => el("li", {}, el("i", { class: `bound-${bound}` }),
    bound ? trace.bounds[bound] : "n/a")));
  $("machine").textContent = [meta.machine, meta.timing, meta.energy].filter(Boolean).join(" · ");
  const box = (name, value) => el("div", {}, el("dt", {}, name), el("dd", { class: "value" }, value), el("dd", { class: "kind" },
    value === "n/a" ? "" : meta.busy ? "measured on a busy machine: may be too low" : "measured"));
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
function tokenKeys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const { index } = state.cell, last = trace.cells.length - 1;
  const next = { ArrowLeft: () => index - 1, ArrowRight: () => index + 1, Home: () => 0, End: () => last, PageUp: () => index - 50,
                 PageDown: () => index + 50, ArrowUp: () => beside(state.cell, -1).index, ArrowDown: () => beside(state.cell, 1).index }[event.key];
  if (next) { event.preventDefault(); choose(trace.cells[clamp(next(), 0, last)], { pin: event.shiftKey && !state.comparing }); }
  if (event.key === "Enter") { event.preventDefault(); state.level = "token"; drawZoom({ focus: true }); }
}
panel.addEventListener("keydown", tokenKeys);
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
  else if (event.target === document.body) tokenKeys(event);
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
