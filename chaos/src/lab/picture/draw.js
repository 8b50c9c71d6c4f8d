// Draws what is in view. Time goes downwards, as in a sequence diagram: names of hosts then stand side by side above their
// lanes, and texts of messages lie along their arrows, so both can be read without turning the head.

const HEAD_PX = 34, AXIS_PX = 96, LEAST_LANE_PX = 64;
// Above so many entries in view, arrows have no texts and those on the same pixels are drawn once.
const MANY = 3000;
// Texts are drawn for so many at most.
const TEXTS_IN_VIEW = 250;

const stage = document.getElementById("stage"), overview = document.getElementById("overview");
// The test of the page reads pixels, which is fast only if they are made where they are read.
const pen = stage.getContext("2d", { willReadFrequently: ADDRESS.startsWith("check") }), overviewPen = overview.getContext("2d");

// The part that is in view: the position of its upper edge, the positions on one pixel, how far it is moved to the right.
const view = { scale: "steps", top: 0, perPx: 1, left: 0, width: 600, height: 400, chosen: -1 };
// What the last drawing showed, for clicks and for whoever reads the page: [entry, x0, y0, x1, y1].
const drawn = { segments: [], dots: [], inView: 0, merged: false };

const colors = {};
function readColors() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["back", "panel", "line", "text", "faint", "lane", "arrived", "damaged", "lost", "cut", "box", "queue",
    "unreceived", "flying", "event", "fault", "mark", "note", "shade", "bar", "gap", "broken", "chosen"]) {
    colors[`--${name}`] = style.getPropertyValue(`--${name}`).trim();
  }
}

const scale = () => SCALES[view.scale];
const yOf = (position) => HEAD_PX + (position - view.top) / view.perPx;
const positionAt = (y) => view.top + (y - HEAD_PX) * view.perPx;

// The horizontal place of each lane; hidden ones have none.
let laneX = [], lanePx = 0, scenarioPx = 0;
function placeLanes() {
  const hosts = LANES.length - 1 - [...filter.lanes].filter((lane) => lane !== SCENARIO).length;
  scenarioPx = Math.min(300, Math.max(180, view.width * 0.24));
  const first = AXIS_PX + (filter.lanes.has(SCENARIO) ? 0 : scenarioPx);
  lanePx = Math.max(LEAST_LANE_PX, (view.width - first - 10) / Math.max(hosts, 1));
  const widest = Math.max(0, first + hosts * lanePx - view.width + 10);
  view.left = Math.min(Math.max(view.left, 0), widest);
  let next = first + lanePx / 2 - view.left;
  laneX = LANES.map((_, lane) => {
    if (filter.lanes.has(lane)) return null;
    if (lane === SCENARIO) return AXIS_PX + 12 - view.left;
    next += lanePx;
    return next - lanePx;
  });
}

function fitted(text, px) {
  if (pen.measureText(text).width <= px) return text;
  let keep = Math.floor(text.length * px / pen.measureText(text).width);
  while (keep > 1 && pen.measureText(text.slice(0, keep) + "…").width > px) keep--;
  return text.slice(0, keep) + "…";
}

// Rows of pixels on which texts lie, so that none covers another.
let taken = [];
function isFree(x, y, px) {
  const from = Math.floor(y / 12), rows = [from, from + 1];
  if (rows.some((row) => (taken[row] ?? []).some(([a, b]) => a < x + px + 4 && x < b + 4))) return false;
  for (const row of rows) (taken[row] ??= []).push([x, x + px]);
  return true;
}

function put(text, x, y, color, most) {
  const fits = fitted(text, most), px = pen.measureText(fits).width;
  if (most < 20 || y < HEAD_PX + 8 || !isFree(x, y - 10, px)) return false;
  pen.lineWidth = 4; pen.lineJoin = "round"; pen.setLineDash([]);
  pen.strokeStyle = colors["--back"]; pen.strokeText(fits, x, y);
  pen.fillStyle = color; pen.fillText(fits, x, y);
  return true;
}

function fit(canvas, context) {
  const ratio = window.devicePixelRatio || 1, { clientWidth: width, clientHeight: height } = canvas;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio);
  }
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return [width, height];
}

function draw() {
  [view.width, view.height] = fit(stage, pen);
  keepInRange();
  placeLanes();
  taken = [];
  pen.font = "12px system-ui, 'DejaVu Sans', sans-serif";
  drawShades();
  drawLanes();
  const entries = inView();
  drawn.segments = []; drawn.dots = []; drawn.inView = entries.length; drawn.merged = entries.length > MANY;
  if (drawn.merged) drawMany(entries); else drawFew(entries);
  drawFaultBars();
  drawBroken();
  drawAxis();
  drawHead();
  drawOverview();
}

function keepInRange() {
  const { size } = scale(), px = Math.max(view.height - HEAD_PX, 50);
  view.perPx = Math.min(Math.max(view.perPx, view.scale === "steps" ? 0.004 : 1), size * 1.05 / px);
  view.top = Math.min(Math.max(view.top, -12 * view.perPx), Math.max(size - (px - 24) * view.perPx, -12 * view.perPx));
}

// The shown entries of which a part is in view, in their order.
function inView() {
  const { begin, last, blocks } = scale(), from = positionAt(HEAD_PX), to = positionAt(view.height);
  const first = lowerBound(begin, from), all = [];
  for (let block = 0; block * BLOCK < first; block++) {
    if (blocks[block] < from) continue;
    const end = Math.min(first, (block + 1) * BLOCK);
    for (let i = block * BLOCK; i < end; i++) if (shown.is[i] && last[i] >= from) all.push(i);
  }
  for (let i = first; i < model.count && begin[i] <= to; i++) if (shown.is[i]) all.push(i);
  return all;
}

function band(band) {
  const [from, to] = scale().of(band.ranks, band.times);
  return [yOf(from), Math.max(yOf(to), yOf(from) + 3)];
}

function drawShades() {
  pen.fillStyle = colors["--shade"];
  for (const fault of DATA.faults) {
    const [from, to] = band(fault);
    if (to < HEAD_PX || from > view.height) continue;
    for (const lane of fault.lanes) {
      if (laneX[lane] !== null) pen.fillRect(laneX[lane] - lanePx * 0.36, from, lanePx * 0.72, to - from);
    }
  }
}

function drawLanes() {
  pen.strokeStyle = colors["--lane"]; pen.lineWidth = 1.5; pen.setLineDash([]);
  pen.beginPath();
  for (const x of laneX.slice(1)) if (x !== null) { pen.moveTo(x, HEAD_PX); pen.lineTo(x, view.height); }
  pen.stroke();
  for (const gap of DATA.gaps) {
    const x = laneX[gap.lanes[0]], [from, to] = band(gap);
    if (x === null || to < HEAD_PX || from > view.height) continue;
    const top = Math.max(from, HEAD_PX - 2), bottom = Math.min(to, view.height + 2);
    pen.fillStyle = colors["--back"]; pen.fillRect(x - 7, top, 14, bottom - top);
    pen.save();
    pen.beginPath(); pen.rect(x - 6, top, 12, bottom - top); pen.clip();
    pen.strokeStyle = colors["--gap"]; pen.lineWidth = 1.2; pen.beginPath();
    for (let y = top - 12; y < bottom; y += 6) { pen.moveTo(x - 6, y + 12); pen.lineTo(x + 6, y); }
    pen.stroke(); pen.restore();
    pen.strokeStyle = colors["--gap"]; pen.lineWidth = 1; pen.strokeRect(x - 6, top, 12, bottom - top);
    if (bottom - top > 14) put(gap.text, x + 10, Math.max(from, HEAD_PX) + 12, colors["--gap"], lanePx * 0.5 + 20);
  }
}

const strongly = (i, color) => {
  pen.strokeStyle = pen.fillStyle = i === view.chosen ? colors["--text"] : colors[color];
  pen.lineWidth = i === view.chosen ? 3 : isEmpty(i) ? 0.8 : 1.5;
};
// An acknowledgement of TCP and the like: drawn thinly and without a text.
const isEmpty = (i) => model.bytes[i] === 0 && TEXTS[model.text[i]] === "";

// Where the arrow of a packet ends: at its receiver's lane, or on the way there.
function aim(i, end) {
  const x0 = laneX[model.lane[i]], to = model.to[i], fate = end < 0 ? UNDER_WAY : model.endKind[end];
  const reached = fate === ARRIVED || fate === DAMAGED || fate === UNRECEIVED;
  const x1 = to >= 0 && laneX[to] !== null && (to !== model.lane[i]) ? laneX[to] : null;
  if (x1 === null) return to === model.lane[i] ? x0 : x0 + (x0 + 60 < view.width ? 46 : -46);
  return reached ? x1 : x0 + (x1 - x0) * (fate === UNDER_WAY ? 0.8 : 0.62);
}

function drawFew(entries) {
  const { begin, end } = scale();
  if (view.chosen >= 0 && shown.is[view.chosen]) {
    const y = yOf(begin[view.chosen]);
    pen.fillStyle = colors["--chosen"]; pen.fillRect(AXIS_PX, y - 9, view.width, 18);
  }
  const named = [];
  for (const i of entries) {
    const x0 = laneX[model.lane[i]], y0 = yOf(begin[i]);
    if (model.kind[i] !== PACKET) { drawDot(i, x0, y0); continue; }
    const first = model.firstEnd[i], last = model.firstEnd[i + 1];
    if (first === last) drawArrow(i, -1, x0, y0, Math.min(yOf(scale().last[i]), y0 + 24), named);
    for (let k = first; k < last; k++) drawArrow(i, k, x0, y0, yOf(end[k]), named);
  }
  if (entries.length > TEXTS_IN_VIEW) return;
  // The chosen one first, since a text that finds no room is left out; then what programs say, then messages.
  for (const [i, x, y] of drawn.dots.toSorted((a, b) => (b[0] === view.chosen) - (a[0] === view.chosen))) {
    if (model.lane[i] === SCENARIO && model.kind[i] === FAULT) continue;
    const text = TEXTS[model.text[i]].split("\n", 1)[0];
    const color = colors[DOTS[model.kind[i]].color], px = pen.measureText(text).width;
    if (model.lane[i] === SCENARIO) put(text, textsX(), y + 4, color, scenarioPx - 16 - (textsX() - x));
    // It may reach over a neighbour's lane; at the right edge it is to the left of its dot.
    else if (x + 8 + px < view.width || px > lanePx * 1.8) put(text, x + 8, y + 4, color, Math.min(lanePx * 1.8, view.width - x - 10));
    else put(text, x - 8 - px, y + 4, color, px + 1);
  }
  for (const [i, color, x0, y0, x1, y1] of named.sort((a, b) => (b[0] === view.chosen) - (a[0] === view.chosen))) {
    const span = Math.abs(x1 - x0) - 20, near = x1 < x0 ? 0.86 : 0.14;
    // All of a short text, else its kind.
    const whole = TEXTS[model.text[i]], text = whole && pen.measureText(whole).width <= Math.min(span, 190) ? whole : TEXTS[model.label[i]];
    const px = Math.min(pen.measureText(text).width, span);
    // Near its sender, where few arrows cross, and above its line.
    const x = x1 < x0 ? x0 + (x1 - x0) * (1 - near) - px : x0 + (x1 - x0) * near;
    const at = (x + px / 2 - x0) / (x1 - x0 || 1);
    put(text, x, y0 + (y1 - y0) * Math.min(Math.max(at, 0), 1) - 4, colors[color], span);
  }
}

function drawArrow(i, k, x0, y0, y1, named) {
  const fate = FATES[k < 0 ? UNDER_WAY : model.endKind[k]], copy = k > model.firstEnd[i], x1 = aim(i, k);
  strongly(i, fate.color);
  pen.setLineDash(copy ? [10, 2, 2, 2] : fate.dash);
  pen.beginPath(); pen.moveTo(x0, y0);
  if (x1 === x0) { pen.lineTo(x0 + 24, y0); pen.lineTo(x0 + 24, y1); }
  pen.lineTo(x1, y1); pen.stroke(); pen.setLineDash([]);
  endMark(pen, k < 0 ? UNDER_WAY : model.endKind[k], x1, y1, Math.atan2(y1 - (x1 === x0 ? y1 : y0), x1 - (x1 === x0 ? x0 + 24 : x0)));
  drawn.segments.push([i, x0, y0, x1, y1, k]);
  if (!isEmpty(i) && !copy) named.push([i, fate.color, x0, y0, x1, y1]);
}

// The end of an arrow says its fate by its shape too.
function endMark(pen, fate, x, y, angle) {
  pen.save(); pen.translate(x, y); pen.rotate(angle); pen.beginPath();
  if (fate === ARRIVED || fate === DAMAGED) { pen.moveTo(0, 0); pen.lineTo(-9, -4); pen.lineTo(-9, 4); pen.closePath(); pen.fill(); }
  else if (fate === UNDER_WAY) { pen.arc(0, 0, 3.5, 0, 7); pen.stroke(); }
  else if (fate === CUT) { pen.lineWidth = 3; pen.moveTo(0, -7); pen.lineTo(0, 7); pen.stroke(); }
  else if (FATES[fate].color === "--box") pen.fillRect(-4, -4, 8, 8);
  else if (FATES[fate].color === "--queue") { pen.moveTo(5, 0); pen.lineTo(-4, -5); pen.lineTo(-4, 5); pen.closePath(); pen.stroke(); }
  else { pen.lineWidth = 2; for (const s of [-1, 1]) { pen.moveTo(-5, -5 * s); pen.lineTo(5, 5 * s); } pen.stroke(); }
  pen.restore();
}

const DOTS = {
  [EVENT]: { name: "event of a program", color: "--event" }, [FAULT]: { name: "fault or change", color: "--fault" },
  [NOTE]: { name: "note", color: "--note" }, [MARK]: { name: "mark", color: "--mark" },
  [PHASE]: { name: "phase of a host", color: "--gap" },
};
function dotShape(pen, kind, x, y) {
  pen.beginPath();
  if (kind === EVENT) pen.arc(x, y, 4, 0, 7);
  else if (kind === FAULT) { pen.moveTo(x, y - 6); pen.lineTo(x + 5, y); pen.lineTo(x, y + 6); pen.lineTo(x - 5, y); }
  else if (kind === MARK) { pen.moveTo(x - 5, y - 4); pen.lineTo(x + 5, y - 4); pen.lineTo(x, y + 5); }
  else if (kind === NOTE) pen.rect(x - 3, y - 3, 6, 6);
  else pen.rect(x - 8, y - 1, 16, 2);
}
function drawDot(i, x, y) {
  strongly(i, DOTS[model.kind[i]].color);
  dotShape(pen, model.kind[i], x, y);
  pen.fill();
  drawn.dots.push([i, x, y]);
}

// Thousands of entries: one line for all that fall on the same pixels, without texts.
function drawMany(entries) {
  const { begin, end } = scale(), seen = new Map(), paths = FATES.map(() => new Path2D()), lanes = LANES.length;
  const dots = new Path2D();
  for (const i of entries) {
    const y0 = Math.round(yOf(begin[i])), from = model.lane[i], x0 = laneX[from];
    if (model.kind[i] !== PACKET) {
      const key = -1 - from;
      if (seen.get(key) !== y0) { seen.set(key, y0); dots.rect(x0 - 3, y0 - 1, 6, 2); }
      continue;
    }
    for (let k = model.firstEnd[i], n = Math.max(model.firstEnd[i + 1], k + 1); k < n; k++) {
      const has = k < model.firstEnd[i + 1], fate = has ? model.endKind[k] : UNDER_WAY;
      const key = (fate * lanes + from) * lanes + Math.max(model.to[i], 0);
      // Entries are in the order of time, so only the last one of a pair can lie on the same pixel.
      if (seen.get(key) === y0) continue;
      seen.set(key, y0);
      const x1 = aim(i, has ? k : -1), y1 = has ? yOf(end[k]) : y0 + 8;
      paths[fate].moveTo(x0, y0); paths[fate].lineTo(x1, y1);
      drawn.segments.push([i, x0, y0, x1, y1, has ? k : -1]);
    }
  }
  pen.setLineDash([]); pen.lineWidth = 0.7;
  paths.forEach((path, fate) => {
    pen.globalAlpha = fate === ARRIVED ? 0.4 : 0.9;
    pen.strokeStyle = colors[FATES[fate].color];
    pen.stroke(path);
  });
  pen.globalAlpha = 1;
  pen.fillStyle = colors["--event"]; pen.fill(dots);
}

// Faults side by side in the scenario's lane: each in the first track that is free for its time.
const tracks = (() => {
  const ends = [];
  return DATA.faults.map(({ ranks: [from, to] }) => {
    let track = ends.findIndex((end) => end <= from);
    if (track < 0) track = ends.length;
    ends[track] = Math.max(to, from + 1);
    return track;
  });
})();

const TRACKS = Math.max(1, ...tracks.map((track) => track + 1)), TRACK_PX = Math.min(9, 80 / TRACKS);
// Where texts begin in the scenario's lane.
const textsX = () => laneX[SCENARIO] + 12 + TRACKS * TRACK_PX;

function drawFaultBars() {
  if (laneX[SCENARIO] === null) return;
  DATA.faults.forEach((fault, number) => {
    const [from, to] = band(fault);
    if (to < HEAD_PX || from > view.height) return;
    const x = laneX[SCENARIO] + 8 + tracks[number] * TRACK_PX;
    pen.fillStyle = colors["--bar"]; pen.fillRect(x, from, Math.max(TRACK_PX - 2, 1.5), to - from);
  });
  const x = textsX();
  DATA.faults.forEach((fault) => {
    const [from, to] = band(fault);
    if (to < HEAD_PX || from > view.height) return;
    const text = fault.text.replace(/^fault (\d+): \S+ /, "$1: ");
    for (let y = Math.max(from, HEAD_PX) + 11; y < Math.min(to + 16, view.height); y += 14) {
      if (put(text, x, y, colors["--fault"], scenarioPx - (x - laneX[SCENARIO]) - 8)) break;
    }
  });
}

function drawBroken() {
  if (!DATA.broken) return;
  const y = yOf(scale().of(DATA.broken.rank - 0.5, DATA.broken.at_ns)), x = laneX[DATA.broken.lane];
  if (y < HEAD_PX || y > view.height) return;
  pen.strokeStyle = pen.fillStyle = colors["--broken"]; pen.lineWidth = 2; pen.setLineDash([]);
  pen.beginPath(); pen.moveTo(AXIS_PX, y); pen.lineTo(view.width, y); pen.stroke();
  if (DATA.broken.lane !== SCENARIO && x !== null) { pen.beginPath(); pen.arc(x, y, 7, 0, 7); pen.fill(); }
  pen.font = "bold 12px system-ui, 'DejaVu Sans', sans-serif";
  const text = fitted(`broken here: ${DATA.seen}`, view.width - AXIS_PX - 20), px = pen.measureText(text).width + 12;
  pen.fillRect(view.width - px, y, px, 18);
  pen.fillStyle = colors["--back"]; pen.fillText(text, view.width - px + 6, y + 13);
  pen.font = "12px system-ui, 'DejaVu Sans', sans-serif";
}

// The times at the left: in steps, that of every happening that has room; else round ones.
function drawAxis() {
  pen.fillStyle = colors["--panel"]; pen.fillRect(0, HEAD_PX, AXIS_PX - 8, view.height);
  pen.fillStyle = colors["--faint"]; pen.textAlign = "right";
  const from = positionAt(HEAD_PX), to = positionAt(view.height), least = 16 * view.perPx;
  let before = "";
  const tick = (position, ns, digits) => {
    const y = yOf(position), text = `${(ns / 1e9).toFixed(digits)} s`;
    if (y < HEAD_PX + 6 || position > scale().size || text === before) return;
    before = text;
    pen.fillText(text, AXIS_PX - 14, y + 4); pen.fillRect(AXIS_PX - 11, y, 4, 1);
  };
  if (view.scale === "steps") {
    const step = Math.max(1, Math.ceil(least));
    for (let r = Math.max(0, Math.ceil(from / step) * step); r < Math.min(to, model.ranks); r += step) tick(r, model.moments[r], 6);
  } else {
    const step = 10 ** Math.ceil(Math.log10(least * 2)), digits = Math.min(9, Math.max(0, 9 - Math.round(Math.log10(step))));
    for (let t = Math.max(0, Math.ceil(from / step) * step); t < to; t += step) tick(t, t, digits);
  }
  pen.textAlign = "left";
}

function drawHead() {
  pen.fillStyle = colors["--back"]; pen.fillRect(0, 0, view.width, HEAD_PX);
  pen.fillStyle = colors["--line"]; pen.fillRect(0, HEAD_PX - 1, view.width, 1);
  pen.font = "bold 13px system-ui, 'DejaVu Sans', sans-serif"; pen.fillStyle = colors["--text"];
  laneX.forEach((x, lane) => {
    if (x === null) return;
    const name = lane === SCENARIO ? "faults, notes, marks" : LANES[lane];
    const fits = fitted(name, lane === SCENARIO ? scenarioPx - 10 : lanePx - 8);
    pen.fillText(fits, lane === SCENARIO ? x - 4 : x - pen.measureText(fits).width / 2, 22);
  });
  pen.fillStyle = colors["--back"]; pen.fillRect(0, 0, AXIS_PX - 8, HEAD_PX - 1);
  pen.fillStyle = colors["--faint"]; pen.font = "12px system-ui, 'DejaVu Sans', sans-serif";
  pen.fillText(view.scale === "steps" ? "steps ↓" : "time ↓", 10, 22);
}

// The whole run at the left: how much is shown of each part and how much of it didn't arrive, faults, the broken moment, and what is in view.
function drawOverview() {
  const [width, height] = fit(overview, overviewPen), { begin, size } = scale(), o = overviewPen;
  const bin = 3, counts = new Uint32Array(Math.ceil(height / bin) + 1), bad = new Uint32Array(counts.length);
  let most = 1;
  for (const i of shown.all) {
    const at = begin[i] / size * height / bin | 0;
    most = Math.max(most, ++counts[at]);
    if (model.kind[i] === PACKET && model.fate[i] !== ARRIVED && model.fate[i] !== UNDER_WAY) bad[at]++;
  }
  o.fillStyle = colors["--bar"];
  DATA.faults.forEach((fault, number) => {
    const [from, to] = scale().of(fault.ranks, fault.times);
    o.fillRect(2 + (tracks[number] % 4) * 3, from / size * height, 2, Math.max(1, (to - from) / size * height));
  });
  o.fillStyle = colors["--arrived"];
  const bars = (all) => all.forEach((count, y) => { if (count) o.fillRect(16, y * bin, Math.max(2, count / most * (width - 20)), bin); });
  bars(counts);
  o.fillStyle = colors["--lost"];
  bars(bad);
  if (DATA.broken) {
    o.fillStyle = colors["--broken"];
    o.fillRect(0, Math.min(height - 3, scale().of(DATA.broken.rank, DATA.broken.at_ns) / size * height) - 1, width, 3);
  }
  const top = view.top / size * height, tall = (view.height - HEAD_PX) * view.perPx / size * height;
  o.strokeStyle = colors["--text"]; o.lineWidth = 1.5;
  o.strokeRect(1, Math.max(top, 1), width - 3, Math.max(4, Math.min(tall, height - 2)));
}
