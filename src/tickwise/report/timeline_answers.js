// The short answer on top: which token, which stage, why, and what would make it faster.

const ANSWERS = { decode: "generated token", prefill: "prompt", train: "training step" };
const answerName = (phase) => (phase === "decode" && !trace.tokens.tick.length ? "decode tick" : ANSWERS[phase] ?? phase);
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
  const { tick } = worst, { cause } = tick, sums = stageSums(trace, [tick]), slow = largest(sums);
  const blamed = cause ? sums.find((sum) => sum.stage === cause.blamed) : slow;
  const { why, help } = verdict(trace, tick, phase.name, blamed, tick.sums.time);
  const others = tick.requests.length - 1;
  const show = el("button", { type: "button", click: () => { choose(worst); $("tokens").focus(); } }, "Show it");
  const row = answerRow("slowest", phase.name, [`Slowest ${answerName(phase.name)}`, show], [
    [el("bdi", {}, phase.name === "prefill" && worst.text !== null ? `the prompt before ${cellName(worst)}` : cellName(worst)),
     duration(tick.sums.time) + (phase.ticks < 3 ? "" : `, ${multiple(tick.sums.time / phase.typical.wall)} the typical one `
       + `of ${plural(phase.ticks, `${phase.name} tick`)} (${duration(phase.typical.wall)})`) + ".",
     phase.name === "train" ? "" : `${lineName(worst.line)}, tick ${integer(tick.number)}`
       + (others > 0 ? `, with ${plural(others, "other request")}.` : "."),
     processor(tick) && sentence(processor(tick))],
    [trace.stages[slow.stage], `${duration(slow.time)}, ${percent(slow.time / tick.sums.time)} of its tick.`, longestLayer(tick, slow)],
    [null, cause ? say([sentence(cause.why), cause.goes_on ? why : ""]) : why,
     phase.ticks < 3 && !cause && phase.disturbance && sentence(phase.disturbance)],
    [null, faster(cause, help)],
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
  const { typical } = phase, slow = perTick(largest(typical.stages), typical.ticks);
  const { why, help } = verdict(trace, null, phase.name, slow, typical.wall);
  const show = el("button", { type: "button", click: () => { state.comparing = false; state.pinned = null; state.phase = phase.name; zoomTo("run"); } }, "Show all");
  const of = plural(typical.of, `${typical.calm ? "uninterrupted " : ""}${phase.name} tick`);
  return answerRow("typical", phase.name, [`Typical ${answerName(phase.name)}`, show], [
    [duration(typical.wall), typical.ticks === typical.of ? `The mean of the ${of}.` : `The mean of the middle ${integer(typical.ticks)} of ${of}.`],
    [trace.stages[slow.stage], `${duration(slow.time)} per tick, ${percent(slow.time / typical.wall)} of the time.`],
    [null, why, phase.disturbance && `${phase.disturbance[0].toUpperCase()}${phase.disturbance.slice(1)}.`],
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
