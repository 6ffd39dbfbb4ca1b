const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const ALL = -1, NAMES = { copy: "pointer", cross: "target to source", encoder: "source",
                         decoder: "target", self: "text", words: "words" };
for (const map of data.maps) {
  const bytes = Uint8Array.from(atob(map.weights), (c) => c.charCodeAt(0));
  map.weights = new Uint16Array(bytes.buffer);
}
let map = data.maps[0], layer = ALL, head = ALL, row = 0, column = 0;

/** The weights (T · S) of a head, or the mean of a layer's heads or of all. */
function weightsOf(map, layer, head) {
  const size = map.queries.length * map.keys.length, sum = new Float64Array(size);
  let n = 0;
  for (let l = 0; l < map.layers; l += 1) {
    if (layer !== ALL && l !== layer) continue;
    for (let h = 0; h < map.heads; h += 1) {
      if (head !== ALL && h !== head) continue;
      const start = (l * map.heads + h) * size;
      for (let i = 0; i < size; i += 1) sum[i] += map.weights[start + i];
      n += 1;
    }
  }
  return sum.map((value) => value / n / 65535);
}

let weights = weightsOf(map, layer, head);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const most = (values) => values.reduce((a, b) => Math.max(a, b), 0) || 1;

function nameOf(layer, head) {
  if (map.single) return map.single;
  if (layer === ALL) return "The mean of all heads of all layers";
  return head === ALL ? `Layer ${layer + 1}, the mean of its heads` : `Layer ${layer + 1}, head ${head + 1}`;
}

/** Cells of a map into a canvas, the strongest one opaque. */
function paint(canvas, values, n, size, left, top) {
  const brush = canvas.getContext("2d"), peak = most(values);
  brush.fillStyle = colour("--accent");
  values.forEach((value, i) => {
    brush.globalAlpha = Math.sqrt(value / peak);
    brush.fillRect(left + (i % n) * size, top + Math.floor(i / n) * size, size, size);
  });
  brush.globalAlpha = 1;
}

const FONT = "13px system-ui, 'Noto Sans', 'DejaVu Sans', sans-serif";
let cell = 20, left = 0, top_ = 0;

function drawMap() {
  const canvas = byId("map"), n = map.keys.length, m = map.queries.length;
  const brush = canvas.getContext("2d");
  brush.font = FONT;
  const longest = (tokens) => Math.min(150, Math.max(...tokens.map((t) => brush.measureText(t).width)));
  cell = Math.max(12, Math.min(30, Math.floor(760 / Math.max(n, 1))));
  left = Math.ceil(longest(map.queries)) + 12;
  top_ = Math.ceil(longest(map.keys) * 0.87) + 14;
  const width = left + n * cell + 80, height = top_ + m * cell + 2, sharp = window.devicePixelRatio || 1;
  canvas.width = width * sharp; canvas.height = height * sharp;
  canvas.style.width = `${width}px`; canvas.style.height = `${height}px`;
  brush.setTransform(sharp, 0, 0, sharp, 0, 0);
  brush.font = FONT; brush.fillStyle = colour("--ink"); brush.textBaseline = "middle"; brush.textAlign = "right";
  map.queries.forEach((token, i) => brush.fillText(token, left - 8, top_ + (i + 0.5) * cell, left - 10));
  brush.textAlign = "left";
  map.keys.forEach((token, i) => {
    brush.save(); brush.translate(left + (i + 0.5) * cell, top_ - 8); brush.rotate(-Math.PI / 3);
    brush.fillText(token, 0, 0, 150); brush.restore();
  });
  paint(canvas, weights, n, cell, left, top_);
  brush.strokeStyle = colour("--line");
  brush.strokeRect(left, top_, n * cell, m * cell);
  brush.strokeStyle = colour("--validation"); brush.lineWidth = 2;
  brush.strokeRect(left + column * cell, top_ + row * cell, cell, cell);
  canvas.setAttribute("aria-label", `${nameOf(layer, head)}: ${m} by ${n} weights. Arrow keys read them.`);
  byId("scale").textContent = `darkest: ${most(weights).toFixed(3)}`;
  byId("chosen").textContent = nameOf(layer, head);
}

function say() {
  const value = weights[row * map.keys.length + column];
  const copied = map.copied.length ? `; it is copied with probability ${map.copied[row].toFixed(3)}` : "";
  byId("values").textContent = `${map.queries[row]} ← ${map.keys[column]}: ${value.toFixed(3)}${copied}`;
}

/** Shade the other tokens by what token number `at` takes of them. */
function shade(at) {
  const n = map.keys.length, values = weights.slice(at * n, (at + 1) * n), peak = most(values);
  document.querySelectorAll("#words .key-token").forEach((token, i) => {
    const share = Math.round(100 * Math.sqrt(values[i] / peak));
    token.style.background = `color-mix(in srgb, var(--accent) ${Math.round(0.6 * share)}%, transparent)`;
    token.title = values[i].toFixed(3);
  });
  document.querySelectorAll("#words .query-token").forEach((token, i) => token.classList.toggle("here", i === at));
  row = at; column = values.indexOf(Math.max(...values));
  drawMap(); say();
}

function drawWords() {
  const words = byId("words");
  words.replaceChildren();
  for (const [kind, tokens] of [["query", map.queries], ["key", map.keys]]) {
    const line = document.createElement("p"), name = document.createElement("small");
    name.textContent = kind === "query" ? "looks" : "looked at";
    line.append(name);
    tokens.forEach((text, i) => {
      const token = document.createElement("span");
      token.className = `token ${kind}-token`; token.textContent = text; token.dir = "auto";
      if (kind === "query") {
        token.tabIndex = 0;
        token.addEventListener("pointerenter", () => shade(i));
        token.addEventListener("focus", () => shade(i));
      }
      line.append(token);
    });
    words.append(line);
  }
}

function drawHeads() {
  const grid = byId("heads"), n = map.keys.length, m = map.queries.length;
  const size = Math.max(1, Math.min(6, Math.floor(90 / Math.max(n, m))));
  grid.replaceChildren();
  grid.style.gridTemplateColumns = `repeat(${map.heads + 2}, auto)`;
  const label = (text) => { const span = document.createElement("span"); span.textContent = text; grid.append(span); };
  ["", "mean", ...Array.from({ length: map.heads }, (_, h) => `head ${h + 1}`)].forEach(label);
  for (let l = 0; l < map.layers; l += 1) {
    label(`layer ${l + 1}`);
    for (let h = ALL; h < map.heads; h += 1) {
      const button = document.createElement("button"), canvas = document.createElement("canvas");
      canvas.width = n * size; canvas.height = m * size;
      paint(canvas, weightsOf(map, l, h), n, size, 0, 0);
      button.append(canvas);
      button.dataset.layer = l; button.dataset.head = h;
      button.setAttribute("aria-label", nameOf(l, h));
      button.addEventListener("click", () => choose(l, h));
      grid.append(button);
    }
  }
}

function choose(l, h) {
  layer = l; head = h; weights = weightsOf(map, layer, head);
  document.querySelectorAll("#heads button").forEach((button) => button.setAttribute(
    "aria-pressed", String(Number(button.dataset.layer) === layer && Number(button.dataset.head) === head)));
  drawMap(); say();
}

function chooseMap(index) {
  map = data.maps[index]; row = 0; column = 0;
  document.querySelectorAll("#maps button").forEach((button, i) => {
    button.setAttribute("aria-selected", String(i === index)); button.tabIndex = i === index ? 0 : -1;
  });
  byId("about").textContent = map.about;
  byId("by-layer").hidden = Boolean(map.single);
  drawWords(); drawHeads(); choose(ALL, ALL);
}

data.maps.forEach((one, index) => {
  const button = document.createElement("button");
  button.textContent = NAMES[one.name] || one.name; button.setAttribute("role", "tab");
  button.addEventListener("click", () => chooseMap(index));
  button.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    const next = (index + step + data.maps.length) % data.maps.length;
    chooseMap(next); byId("maps").children[next].focus();
  });
  byId("maps").append(button);
});

function move(r, c) {
  row = Math.max(0, Math.min(map.queries.length - 1, r)); column = Math.max(0, Math.min(map.keys.length - 1, c));
  drawMap(); say();
}

byId("map").addEventListener("pointermove", (event) => {
  const box = event.target.getBoundingClientRect();
  const c = Math.floor((event.clientX - box.left - left) / cell), r = Math.floor((event.clientY - box.top - top_) / cell);
  if (c >= 0 && r >= 0 && c < map.keys.length && r < map.queries.length) move(r, c);
});
byId("map").addEventListener("keydown", (event) => {
  const cells = { ArrowUp: [row - 1, column], ArrowDown: [row + 1, column], ArrowLeft: [row, column - 1],
                  ArrowRight: [row, column + 1], Home: [row, 0], End: [row, map.keys.length - 1] };
  const heads = map.layers * map.heads;
  if (event.key in cells) {
    move(...cells[event.key]);
  } else if (event.key === "PageDown" || event.key === "PageUp") {
    const at = layer === ALL ? -1 : layer * map.heads + Math.max(head, 0);
    const next = Math.max(-1, Math.min(heads - 1, at + (event.key === "PageDown" ? 1 : -1)));
    if (next < 0) choose(ALL, ALL); else choose(Math.floor(next / map.heads), next % map.heads);
  } else {
    return;
  }
  event.preventDefault();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { drawHeads(); choose(layer, head); });
chooseMap(0);
document.body.dataset.ready = "";
