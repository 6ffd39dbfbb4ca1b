"""The page's style sheet and script. No web font, no library, no request."""

CSS = """
:root { color-scheme: light dark; --ground: #fbfaf8; --card: #ffffff; --ink: #1d2129; --soft: #5c6470;
  --line: #e3e1dc; --accent: #1f5a99; --training: #a9c1dd; --validation: #c2501b; --mark: #fdf1d7; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171c; --card: #1c2027; --ink: #e8e6e1;
  --soft: #9aa3b0; --line: #313741; --accent: #7db3ec; --training: #41597a; --validation: #f0915e;
  --mark: #3a3220; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); line-height: 1.55;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif; }
main { max-width: 58rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
header p.brand { margin: 0; color: var(--soft); font-size: .85rem; letter-spacing: .04em; }
h1 { font-size: clamp(1.5rem, 4.5vw, 2.2rem); line-height: 1.2; margin: .3rem 0 .5rem; letter-spacing: -.015em; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .8rem; }
h3 { font-size: 1rem; margin: 1.8rem 0 .2rem; }
p { margin: .3rem 0 .8rem; max-width: 46rem; }
a { color: var(--accent); }
.summary { font-size: 1.08rem; color: var(--soft); }
small, .kind { font-size: .72rem; color: var(--soft); font-weight: 400; }
dl.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .7rem;
  margin: 1.2rem 0; }
dl.figures div { background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
  padding: .7rem .85rem .6rem; display: flex; flex-direction: column; }
dl.figures dt { color: var(--soft); font-size: .82rem; }
dl.figures dd { margin: 0; }
dl.figures dd.value { font-size: 1.28rem; font-weight: 650; font-variant-numeric: tabular-nums; line-height: 1.3; }
figure.chart, .card { background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
  margin: 0; padding: 1rem; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg:focus-visible, .scroll:focus-visible, summary:focus-visible { outline: 2px solid var(--accent);
  outline-offset: 3px; border-radius: .3rem; }
.grid { stroke: var(--line); } .tick { fill: var(--soft); font-size: 12.5px; }
polyline { fill: none; stroke-linejoin: round; stroke-linecap: round; }
.training { stroke: var(--training); stroke-width: 1.2; }
.average { stroke: var(--accent); stroke-width: 2.4; }
.validation { stroke: var(--validation); stroke-width: 2.4; } .validation-dot { fill: var(--validation); }
.cursor { stroke: var(--soft); stroke-dasharray: 3 3; }
.cursor-dot { fill: var(--accent); stroke: var(--card); stroke-width: 2; }
figcaption { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; font-size: .85rem; color: var(--soft);
  min-height: 1.6rem; align-items: baseline; }
.key::before { content: ""; display: inline-block; width: 1.1rem; height: .22rem; border-radius: 1rem;
  margin-right: .4rem; vertical-align: middle; background: var(--accent); }
.validation-key::before { background: var(--validation); }
output { margin-left: auto; color: var(--ink); font-variant-numeric: tabular-nums; }
.samples { display: grid; grid-template-columns: 1fr 1fr; gap: .8rem; }
.samples + .samples { margin-top: .8rem; }
.samples h4 { margin: 0 0 .4rem; font-size: .82rem; color: var(--soft); font-weight: 500; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; font-size: .86rem; line-height: 1.5;
  font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.text mark { background: var(--mark); color: inherit; border-radius: .2rem; }
.bar { display: flex; height: 2.1rem; border-radius: .45rem; overflow: hidden; gap: 1px; margin: .6rem 0 .8rem; }
.bar span { flex-basis: 0; min-width: 0; font-size: .74rem; color: #fff; overflow: hidden; white-space: nowrap;
  display: flex; align-items: center; justify-content: center; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .32rem .3rem .32rem .8rem; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th:first-child { text-align: left; padding-left: 0; } tbody th { font-weight: 400; }
thead th { color: var(--soft); font-weight: 500; font-size: .82rem; } thead small { display: block; }
tfoot th, tfoot td { font-weight: 650; border-bottom: 0; }
table i { display: inline-block; width: .75rem; height: .75rem; border-radius: .2rem; margin-right: .5rem;
  vertical-align: -.05rem; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .8rem 1rem;
  white-space: pre-wrap; overflow-wrap: anywhere; font-size: .86rem; margin: .4rem 0; }
ul { padding-left: 1.2rem; max-width: 46rem; } .versions { color: var(--soft); font-size: .86rem; }
.stage-data { background: #7d8590; } .stage-embed { background: #3f8fc4; } .stage-norm { background: #8f7a12; }
.stage-qkv { background: #3a6fc2; } .stage-rope { background: #5b4fb0; } .stage-attention { background: #2f62ad; }
.stage-out { background: #264f8c; } .stage-schedule { background: #4b7480; } .stage-backward { background: #8d3d3d; }
.stage-ffn { background: #b9501c; } .stage-head { background: #1c7f5e; } .stage-loss { background: #a84a82; }
.stage-sample { background: #a84a82; } .stage-optimizer { background: #6f4fa8; }
.stage-detokenize { background: #7a6420; } .stage-host { background: #6a6f78; }
.stage-recurrent { background: #a8552a; } .stage-cross_attention { background: #4d59a8; }
.stage-tokenize { background: #7a6420; } .stage-forward { background: #2f6d8d; }
.stage-draft { background: #5f7d3a; } .stage-validation { background: #57796a; }
.stage-checkpoint { background: #7d6f5a; }
@media (max-width: 40rem) { main { padding: 1.4rem .9rem 3rem; } .samples { grid-template-columns: 1fr; }
  .bar span { font-size: 0; } figure.chart { padding: .6rem; } .tick { font-size: 20px; }
  th, td { padding-left: .5rem; } output { margin-left: 0; width: 100%; } }
@media print { body { background: #fff; } }
"""

SCRIPT = """
(() => {
  const svg = document.getElementById("loss"), data = document.getElementById("loss-data");
  if (!svg || !data) return;
  const points = JSON.parse(data.textContent), out = document.getElementById("loss-values");
  const line = document.getElementById("loss-cursor"), dot = document.getElementById("loss-dot");
  let at = points.length - 1;
  const show = (index) => {
    at = Math.max(0, Math.min(points.length - 1, index));
    const [step, x, loss, validation, y, validationY, seconds] = points[at];
    line.setAttribute("x1", x); line.setAttribute("x2", x); line.setAttribute("visibility", "visible");
    dot.setAttribute("cx", x); dot.setAttribute("cy", y ?? validationY);
    dot.setAttribute("visibility", "visible");
    const parts = ["step " + step.toLocaleString("en")];
    if (loss !== null) parts.push("training " + loss.toFixed(3));
    if (validation !== null) parts.push("validation " + validation.toFixed(3));
    if (seconds !== null) parts.push(seconds + " s");
    out.textContent = parts.join(" · ");
  };
  const hide = () => {
    line.setAttribute("visibility", "hidden"); dot.setAttribute("visibility", "hidden"); out.textContent = "";
  };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    let nearest = 0;
    points.forEach((point, index) => {
      if (Math.abs(point[1] - x) < Math.abs(points[nearest][1] - x)) nearest = index;
    });
    show(nearest);
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("focus", () => { if (svg.matches(":focus-visible")) show(at); });
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: at - 1, ArrowRight: at + 1, PageUp: at - 20, PageDown: at + 20,
                    Home: 0, End: points.length - 1 };
    if (!(event.key in moves)) return;
    event.preventDefault(); show(moves[event.key]);
  });
})();
"""
