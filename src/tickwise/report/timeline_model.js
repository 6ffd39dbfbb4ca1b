"use strict";
// A trace as the page works with it: typed columns, sums over any part of it, and sentences in plain words.

const WIDTHS = [
  { key: "time", name: "time", kind: "measured", format: (value) => duration(value) },
  { key: "flops", name: "FLOPs", kind: "counted", format: (value) => quantity(value, "FLOP") },
  { key: "bytes", name: "bytes", kind: "counted", format: (value) => quantity(value, "B") },
  { key: "energy", name: "energy", kind: "n/a", format: (value) => energy(value) },
];

function scaled(value, steps) {
  const fits = steps.findIndex(([least]) => Math.abs(value) >= 0.9995 * least);
  const [divisor, unit] = steps[fits < 0 ? steps.length - 1 : fits], number = value / divisor;
  return (Math.abs(number) >= 100 ? number.toFixed(0) : String(Number(number.toPrecision(3)))) + " " + unit;
}
const NS = [[1e9, "s"], [1e6, "ms"], [1e3, "µs"], [1, "ns"]];
const duration = (ns) => Number.isFinite(ns) ? scaled(ns, NS) : "n/a";
const quantity = (value, unit) => !Number.isFinite(value) ? "n/a" : scaled(value,
  [[1e15, "P" + unit], [1e12, "T" + unit], [1e9, "G" + unit], [1e6, "M" + unit], [1e3, "k" + unit], [1, unit]]);
const energy = (joules) => !Number.isFinite(joules) ? "n/a" :
  scaled(joules, [[1, "J"], [1e-3, "mJ"], [1e-6, "µJ"], [1e-9, "nJ"]]);
const percent = (share) => !Number.isFinite(share) ? "n/a" : share > 0 && share < 0.0005 ? "< 0.1 %" :
  (share * 100).toFixed(share >= 0.0995 || share === 0 ? 0 : 1) + " %";
const integer = (value) => value === null || !Number.isFinite(value) ? "n/a" : value.toLocaleString("en");
const multiple = (value) => `${value >= 10 ? integer(Math.round(value)) : value.toPrecision(2)} ×`;
const plural = (count, word) => integer(count) + " " + word + (count === 1 ? "" : "s");
const plus = (sum, value) => Number.isNaN(value) ? sum : Number.isNaN(sum) ? value : sum + value;

// What a reader could not see, or what would turn the rest of the line around, is shown as a sign for it.
function visible(text) {
  if (text === "") return "∅";
  if (/^ +$/.test(text)) return "␣".repeat(text.length);
  return text.replace(/\p{Cc}|\p{Cf}|\p{Cs}|\p{Zl}|\p{Zp}/gu, (sign) => {
    const code = sign.codePointAt(0);
    if (sign === "\n") return "↵";
    if (sign === "\t") return "⇥";
    if (sign === "\u200d") return sign;  // joins emoji
    if (code < 32) return String.fromCharCode(0x2400 + code);
    return code >= 0xd800 && code < 0xe000 ? "\ufffd" : `‹${code.toString(16).toUpperCase().padStart(4, "0")}›`;
  });
}
const quoted = (text) => `“\u2068${visible(text)}\u2069”`;

function loadTrace(raw) {
  const { rows, costs, ticks: columns, tokens: said } = raw;
  const total = rows.duration.length;
  const trace = {
    ...raw, total,
    stage: new Uint16Array(total), layer: new Int32Array(total), bound: new Uint8Array(total),
    time: Float64Array.from(rows.duration), flops: new Float64Array(total), read: new Float64Array(total),
    written: new Float64Array(total), bytes: new Float64Array(total),
    energy: new Float64Array(total).fill(NaN),
  };
  for (let row = 0; row < total; row += 1) {
    const cost = rows.cost[row];
    trace.bound[row] = rows.bound.charCodeAt(row) - 48;
    trace.flops[row] = costs.flops[cost] ?? NaN;
    trace.read[row] = costs.read[cost] ?? NaN;
    trace.written[row] = costs.written[cost] ?? NaN;
    trace.bytes[row] = plus(trace.read[row], trace.written[row]);
    if (rows.energy && rows.energy[row] !== null) trace.energy[row] = rows.energy[row] / 1e6;
  }
  let first = 0;
  trace.ticks = columns.number.map((number, index) => {
    const layout = raw.layouts[columns.layout[index]];
    const last = first + layout.length / 2;
    const sums = { time: 0, flops: NaN, bytes: NaN, energy: NaN };
    for (let row = first; row < last; row += 1) {
      trace.stage[row] = layout[2 * (row - first)];
      trace.layer[row] = layout[2 * (row - first) + 1];
      for (const { key } of WIDTHS) sums[key] = plus(sums[key], trace[key][row]);
    }
    const tick = { index, number, first, last, sums, phase: columns.phase[index], batch: columns.batch[index],
                   interruptions: raw.interruptions[index], cpu: raw.cpu[index], cause: raw.causes[index],
                   kv: columns.kv[index], start: columns.start[index],
                   requests: raw.request_sets[columns.requests[index]] };
    first = last;
    return tick;
  });
  trace.phaseOf = Object.fromEntries(raw.phases.map((phase) => [phase.name, {
    ...phase, stages: phase.stages.map((sum) => runSum(trace, sum)),
    typical: { ...phase.typical, stages: phase.typical.stages.map((sum) => runSum(trace, sum)) },
  }]));
  addCells(trace, said);
  return trace;
}

// A cell is a token, or a tick that gave a request none: part of a prompt, or a training step.
function addCells(trace, said) {
  const tokensOf = new Map();
  said.tick.forEach((tick, index) => {
    const key = tick * trace.requests.length + said.request[index];
    if (!tokensOf.has(key)) tokensOf.set(key, []);
    tokensOf.get(key).push(index);
  });
  trace.lines = trace.requests.map((name, index) => ({ name, index, cells: [] }));
  for (const tick of trace.ticks) {
    for (const request of tick.requests) {
      const line = trace.lines[request];
      const tokens = tokensOf.get(tick.index * trace.requests.length + request) ?? [null];
      for (const token of tokens) {
        line.cells.push(token === null ? { tick, line, text: null, position: null, id: null } :
          { tick, line, text: said.text[token], position: said.position[token], id: said.id[token] });
      }
    }
  }
  trace.lines = trace.lines.filter((line) => line.cells.length);
  trace.cells = trace.lines.flatMap((line) => line.cells);
  trace.cells.forEach((cell, index) => { cell.index = index; });
}

const lineName = (line) => line.cells[0].tick.phase === "train" ? "Training" : `Request ${quoted(line.name)}`;
// Whether the tick worked on this request's own prompt, not only on another's.
const ofPrompt = (cell) => cell.tick.phase === "prefill" && (cell.text === null || cell === cell.line.cells.find((one) => one.text !== null));

function cellName(cell) {
  if (cell.text !== null) return quoted(cell.text);
  if (cell.tick.phase === "train") return "step " + integer(cell.tick.number);
  return cell.tick.phase === "prefill" ? "part of the prompt" : "tick " + integer(cell.tick.number);
}

// Sums over rows, by stage. `bounds` is time by bound; `known` is the time of the rows whose work is counted.
const emptySum = (stage) => ({ stage, time: 0, flops: NaN, read: NaN, written: NaN, bytes: NaN, energy: NaN,
                               bounds: [0, 0, 0, 0], known: 0 });
function addRow(sum, trace, row) {
  sum.time += trace.time[row];
  for (const key of ["flops", "read", "written", "bytes", "energy"]) sum[key] = plus(sum[key], trace[key][row]);
  sum.bounds[trace.bound[row]] += trace.time[row];
  if (!Number.isNaN(trace.flops[row]) || !Number.isNaN(trace.bytes[row])) sum.known += trace.time[row];
}
// Share of the ceilings and bound of a stage, as the ledger has them for its rows (profiling/roofline.py).
function finish(trace, sum) {
  const { bandwidth, peak } = trace.meta, seconds = sum.known > sum.time / 2 ? sum.known / 1e9 : NaN;
  const memory = sum.bytes / (bandwidth ?? NaN) / seconds, compute = sum.flops / (peak ?? NaN) / seconds;
  sum.share = Number.isNaN(memory) ? compute : Number.isNaN(compute) ? memory : Math.max(memory, compute);
  if (Number.isNaN(seconds)) sum.bound = sum.bounds.indexOf(Math.max(...sum.bounds));
  else if (sum.share >= 0.5) sum.bound = memory === sum.share ? 2 : 1;
  else sum.bound = Number.isNaN(memory) || Number.isNaN(compute) ? 0 : 3;
  return sum;
}
function runSum(trace, raw) {
  const sum = { ...raw };
  for (const key of ["flops", "read", "written", "energy"]) sum[key] = raw[key] ?? NaN;
  sum.bytes = plus(sum.read, sum.written);
  return finish(trace, sum);
}
function stageSums(trace, ticks, keep = () => true) {
  const sums = new Map();
  for (const tick of ticks) {
    for (let row = tick.first; row < tick.last; row += 1) {
      if (!keep(row)) continue;
      const stage = trace.stage[row];
      if (!sums.has(stage)) sums.set(stage, emptySum(stage));
      addRow(sums.get(stage), trace, row);
    }
  }
  return [...sums.values()].map((sum) => finish(trace, sum));
}
// Of stages that run one after the other: their times at the ceilings add up.
function total(sums) {
  const all = emptySum(-1);
  let ideal = 0;
  for (const sum of sums) {
    for (const key of ["time", "known"]) all[key] += sum[key];
    if (Number.isFinite(sum.share)) ideal += sum.share * sum.known;
    for (const key of ["flops", "read", "written", "bytes", "energy"]) all[key] = plus(all[key], sum[key]);
    sum.bounds.forEach((time, bound) => { all.bounds[bound] += time; });
  }
  all.share = all.known > all.time / 2 ? ideal / all.known : NaN;
  return all;
}
function perTick(sum, ticks) {
  const mean = { ...sum };
  for (const key of ["time", "known", "flops", "read", "written", "bytes", "energy"]) mean[key] /= ticks;
  return mean;
}
const ofCeiling = (sum) => percent(sum.share) + (sum.share > 1 ? (sum.bound === 2 ? " (cache)" : " (above peak)") : "");
const largest = (sums) => sums.reduce((best, sum) => (sum.time > best.time ? sum : best));

// Why a stage took its time, from its sums.
function reason(trace, sum) {
  const { meta } = trace;
  const doubt = meta.busy ? " That was measured on a busy machine and may be too low." : "";
  const rate = (value) => value / (sum.known / 1e9);
  if (sum.bound === 2) {
    const moved = `Memory-bound: moved ${quantity(sum.bytes, "B")} in ${duration(sum.known)}`;
    const ceiling = meta.bandwidth ? quantity(meta.bandwidth, "B/s") : "n/a";
    if (sum.share > 1) return `${moved}, from cache: ${quantity(rate(sum.bytes), "B/s")}, where main memory gives ${ceiling}.${doubt}`;
    return `${moved}, ${percent(sum.share)} of this machine's measured bandwidth (${ceiling}).${doubt}`;
  }
  if (sum.bound === 1) {
    const did = `Compute-bound: ${quantity(sum.flops, "FLOP")} in ${duration(sum.known)}`;
    const ceiling = meta.peak ? ` (${quantity(meta.peak, "FLOP/s")})` : "";
    if (sum.share > 1) {
      return `${did}, more than this machine's measured ${meta.dtype ?? ""} peak allows${ceiling}: attention counts in full, `
        + "though its kernel leaves out what a causal mask hides, or the peak was measured too low." + doubt;
    }
    return `${did}, ${percent(sum.share)} of this machine's measured ${meta.dtype ?? ""} peak${ceiling}.${doubt}`;
  }
  if (sum.bound === 3) {
    return "Overhead-bound: " + (Number.isFinite(sum.share)
      ? `${sum.share < 0.005 ? "over 99 %" : percent(Math.max(0, 1 - sum.share))} of the time is neither moving bytes nor computing.`
      : "Python, bookkeeping, waiting; the model does nothing here.");
  }
  return "What holds it back is n/a: its FLOPs and bytes, or the machine's ceilings, are not known.";
}

// What the stage's time would be at the ceilings, against the whole it is part of. Modelled, and not said of ceilings
// that may be too low.
function saving(trace, sum, whole) {
  if (!Number.isFinite(sum.share) || trace.meta.busy) return "";
  if (sum.share > 0.85) {
    return sum.bound === 2
      ? `It runs near the ceiling already; half the bytes: about ${percent(sum.time / 2 / whole)} off the tick (modelled).`
      : "It runs near the ceiling already: only less work helps.";
  }
  const ideal = sum.time * sum.share;
  return `At the ceiling it would take ${duration(ideal)}: ${percent((sum.time - ideal) / whole)} off the tick (modelled).`;
}

const sentence = (text) => text[0].toUpperCase() + text.slice(1) + (text.endsWith(".") ? "" : ".");

// Why a stage of a tick (null: of the typical tick of `phase`) took its time, and what would help: two texts. What was
// unusual about a tick is settled where the trace is read (core/slow_ticks.py), for `tickwise trace show` too.
function verdict(trace, tick, phase, sum, whole) {
  const all = trace.phaseOf[phase];
  if (tick?.cause?.stages.includes(sum.stage)) return { why: sentence(tick.cause.why), help: sentence(tick.cause.remedy) };
  const machine = all.busy && sum.bound === 3 && (!tick || all.ticks < 3);  // of so few ticks none is typical
  const help = machine ? all.machine : trace.advice[`${phase}/${trace.stages[sum.stage]}/${trace.bounds[sum.bound]}`] ?? "n/a";
  const { ran } = all.stages.find((one) => one.stage === sum.stage);
  if (tick && 2 * ran < all.ticks) {
    const often = `It runs in only ${integer(ran)} of ${plural(all.ticks, `${phase} tick`)}.`;
    return { why: sum.bound ? `${often} ${reason(trace, sum)}` : often, help };
  }
  return { why: reason(trace, sum), help: machine ? help : `${help} ${saving(trace, sum, whole)}`.trim() };
}

// What would have made a tick faster: without what kept it, and, unless that alone made it slow, in the blamed stage.
const faster = (cause, help) => (cause?.remedy ? say([sentence(cause.remedy), cause.unusual ? "" : help]) : help);

// What of a part of a tick no thread of the program ran for, in words; "" where that hardly matters. The time is
// measured for the tick alone, and shared out to its stages (core/slow_ticks.py), and to their layers by their time.
function awayText(trace, tick, sum) {
  const [, ns] = tick?.cause?.away.find(([stage]) => stage === sum.stage) ?? [0, 0];
  if (!ns) return "";
  const off = ns * sum.time / stageSums(trace, [tick], (row) => trace.stage[row] === sum.stage)[0].time;
  return off < 0.1 * sum.time ? "" : `${sentence(tick.cause.why)} About ${duration(off)} of that fell into this part's ${duration(sum.time)} (estimated).`;
}

// What the system says about the processor in a tick; "" where it says nothing.
function processor(tick) {
  if (tick.cpu === null || tick.interruptions === null) return "";
  const who = tick.interruptions ? `other programs interrupted it ${integer(tick.interruptions)} ×` : "no other program interrupted it";
  return `${duration(tick.cpu)} of processor time${tick.cpu > tick.sums.time ? " (several threads)" : ""}; ${who}`;
}
