// Filters, details, keys and mouse, and the view in the page's address.

const $ = (id) => document.getElementById(id);
const element = (tag, text, props = {}) => Object.assign(document.createElement(tag), { textContent: text }, props);
// The last moment at which the picture was drawn anew is the next frame, however many events ask for it.
let isDrawDue = false;
function redraw() {
  if (isDrawDue) return;
  isDrawDue = true;
  requestAnimationFrame(() => { isDrawDue = false; drawNow(); });
}
function drawNow() {
  draw();
  const merged = drawn.merged ? "; zoom in to read them" : "";
  $("status").textContent =
    `${drawn.inView.toLocaleString("en")} in view of ${shown.all.length.toLocaleString("en")} shown and ${model.count.toLocaleString("en")} recorded${merged}`;
  $("scale").textContent = view.scale === "steps" ? "scale: steps" : "scale: true time";
}
function refilter() {
  applyFilter();
  showFilter();
  keepAddress();
  redraw();
}

// The lists of the filter: each line is a check box with a name and a count.
const lists = { hosts: [], kinds: [], fates: [] };
function listLine(list, hidden, place, name, count, icon) {
  const box = element("input", "", { type: "checkbox" }), label = element("label", "");
  box.addEventListener("change", () => { box.checked ? hidden.delete(place) : hidden.add(place); refilter(); });
  label.append(box, ...(icon ? [icon] : []), element("span", name, { title: name }), element("span", count.toLocaleString("en")));
  const line = element("li", "");
  line.append(label);
  $(list).append(line);
  lists[list].push({ box, hidden, place, name });
}

// A small arrow or dot, as it is in the picture.
function icon(paint) {
  const canvas = element("canvas", "", { width: 68, height: 28 });
  icons.push([canvas, paint]);
  return canvas;
}
const icons = [];
function paintIcons() {
  for (const [canvas, paint] of icons) {
    const context = canvas.getContext("2d");
    context.setTransform(2, 0, 0, 2, 0, 0);
    context.clearRect(0, 0, 34, 14);
    paint(context);
  }
}

function fateIcon(fate) {
  return (context) => {
    context.strokeStyle = context.fillStyle = colors[FATES[fate].color];
    context.lineWidth = 1.5;
    context.setLineDash(fate === DUPLICATED ? [10, 2, 2, 2] : FATES[fate].dash);
    context.beginPath(); context.moveTo(1, 7); context.lineTo(27, 7); context.stroke(); context.setLineDash([]);
    endMark(context, fate === DUPLICATED ? ARRIVED : fate, 28, 7, 0);
  };
}

function makeFilters() {
  FATES.forEach((fate, place) => {
    if (fateCounts[place]) listLine("fates", filter.fates, place, fate.name, fateCounts[place], icon(fateIcon(place)));
  });
  const counts = new Array(LANES.length).fill(0);
  for (let i = 0; i < model.count; i++) {
    counts[model.lane[i]]++;
    if (model.to[i] >= 0 && model.to[i] !== model.lane[i]) counts[model.to[i]]++;
  }
  LANES.forEach((name, lane) => listLine("hosts", filter.lanes, lane, lane === SCENARIO ? "(faults, notes, marks)" : name, counts[lane]));
  for (const { label, kind, count } of labels) {
    const dot = kind === PACKET ? undefined : icon((context) => {
      context.fillStyle = colors[DOTS[kind].color];
      dotShape(context, kind, 17, 7); context.fill();
    });
    listLine("kinds", filter.labels, label, TEXTS[label] || "(no name)", count, dot);
  }
  for (const id of ["peer-a", "peer-b"]) {
    $(id).append(element("option", "any host", { value: -1 }), ...LANES.slice(1).map((name, at) => element("option", name, { value: at + 1 })));
    $(id).addEventListener("change", () => { filter[id.at(-1)] = Number($(id).value); refilter(); });
  }
  $("search").addEventListener("input", () => { filter.text = $("search").value; refilter(); });
  for (const button of document.querySelectorAll("[data-all], [data-none]")) {
    const { all, none } = button.dataset;
    button.addEventListener("click", () => {
      for (const { hidden, place } of lists[all ?? none]) all ? hidden.delete(place) : hidden.add(place);
      refilter();
    });
  }
  $("reset").addEventListener("click", () => { clearFilter(); refilter(); });
}
function clearFilter() {
  for (const set of [filter.lanes, filter.labels, filter.fates]) set.clear();
  Object.assign(filter, { a: -1, b: -1, text: "" });
}
function showFilter() {
  for (const list of [lists.hosts, lists.kinds, lists.fates]) {
    for (const { box, hidden, place } of list) box.checked = !hidden.has(place);
  }
  $("peer-a").value = filter.a;
  $("peer-b").value = filter.b;
  if ($("search").value !== filter.text) $("search").value = filter.text;
}

// The address keeps what is hidden by name, so that it also fits the picture of another run. Of the kinds, those that are shown
// if they are fewer.
function keepAddress() {
  const words = new URLSearchParams();
  const names = (list, hidden) => lists[list].filter(({ place }) => filter[hidden].has(place)).map(({ name }) => name);
  names("hosts", "lanes").forEach((name) => words.append("hide", name));
  names("fates", "fates").forEach((name) => words.append("nofate", name));
  const no = names("kinds", "labels"), only = lists.kinds.filter(({ place }) => !filter.labels.has(place));
  if (no.length <= only.length) no.forEach((name) => words.append("nokind", name));
  else if (only.length) only.forEach(({ name }) => words.append("kind", name));
  else words.append("kind", "");
  if (filter.a >= 0) words.set("a", LANES[filter.a]);
  if (filter.b >= 0) words.set("b", LANES[filter.b]);
  if (filter.text) words.set("find", filter.text);
  if (view.scale !== "steps") words.set("scale", view.scale);
  words.set("top", Number(view.top.toPrecision(9)));
  words.set("per", Number(view.perPx.toPrecision(6)));
  if (view.chosen >= 0) words.set("chosen", view.chosen);
  try { history.replaceState(null, "", `#${words}`); } catch { /* A browser may forbid many changes at once. */ }
}
function readAddress(text) {
  const words = new URLSearchParams(text);
  clearFilter();
  const hide = (list, hidden, names) => {
    for (const { name, place } of lists[list]) if (names.includes(name)) hidden.add(place);
  };
  hide("hosts", filter.lanes, words.getAll("hide"));
  hide("fates", filter.fates, words.getAll("nofate"));
  hide("kinds", filter.labels, words.getAll("nokind"));
  if (words.has("kind")) {
    const only = words.getAll("kind");
    for (const { name, place } of lists.kinds) if (!only.includes(name)) filter.labels.add(place);
  }
  filter.a = words.has("a") ? LANES.indexOf(words.get("a")) : -1;
  filter.b = words.has("b") ? LANES.indexOf(words.get("b")) : -1;
  filter.text = words.get("find") ?? "";
  view.scale = words.get("scale") === "time" ? "time" : "steps";
  const number = (name) => Number.isFinite(parseFloat(words.get(name))) ? parseFloat(words.get(name)) : null;
  view.chosen = number("chosen") !== null && number("chosen") < model.count ? number("chosen") : -1;
  if (number("top") === null || !(number("per") > 0)) return false;
  [view.top, view.perPx] = [number("top"), number("per")];
  return true;
}

// Moves and zooms. A zoom keeps the position at `y`.
const stagePx = () => Math.max(stage.clientHeight - HEAD_PX, 50);
function moveBy(positions) { view.top += positions; keepInRange(); keepAddress(); redraw(); }
function zoomBy(factor, y = HEAD_PX + stagePx() / 2) {
  const at = positionAt(y);
  view.perPx *= factor; keepInRange();
  view.top = at - (y - HEAD_PX) * view.perPx; keepInRange();
  keepAddress(); redraw();
}
function showRange(from, to) {
  view.perPx = Math.max(to - from, 1e-9) / stagePx(); view.top = from;
  keepInRange(); keepAddress(); redraw();
}
function setScale(name) {
  if (name === view.scale) return;
  // The same moment stays at the upper edge, and about as much in view.
  const rank = (position) => lowerBound(model.moments, position);
  const other = (position) => name === "time" ? model.moments[Math.min(model.ranks - 1, Math.max(0, Math.floor(position)))] : rank(position);
  const [from, to] = [other(view.top), other(view.top + stagePx() * view.perPx)];
  view.scale = name;
  showRange(from, Math.max(to, from + 1));
}
const aboutRows = (rows) => rows * stagePx() / 560;
function showBroken() {
  if (!DATA.broken) return;
  view.scale = "steps";
  const rows = aboutRows(26);
  showRange(DATA.broken.rank - rows * 0.86, DATA.broken.rank + rows * 0.14);
}

// Chooses an entry, and brings it into view if it isn't.
function choose(i) {
  view.chosen = i;
  if (i >= 0) {
    const y = yOf(scale().begin[i]);
    if (y < HEAD_PX + 20 || y > view.height - 40) view.top = scale().begin[i] - stagePx() * 0.4 * view.perPx;
    keepInRange();
  }
  showDetails(); keepAddress(); redraw();
}
function step(forward, sameHost) {
  const all = shown.all, host = view.chosen >= 0 ? model.lane[view.chosen] : -1;
  const of = (i) => !sameHost || host < 0 || model.lane[i] === host || model.to[i] === host;
  let at = lowerBound(all, view.chosen >= 0 ? view.chosen : lowerBound(scale().begin, positionAt(HEAD_PX)));
  if (view.chosen >= 0 && forward && all[at] === view.chosen) at++;
  if (!forward) at--;
  while (at >= 0 && at < all.length && !of(all[at])) at += forward ? 1 : -1;
  if (at >= 0 && at < all.length) choose(all[at]);
}

function showDetails() {
  const i = view.chosen, panel = $("chosen");
  panel.replaceChildren();
  $("help").hidden = i >= 0;
  if (i < 0) return;
  const m = model, list = element("dl", ""), isPacket = m.kind[i] === PACKET;
  const row = (name, text) => list.append(element("dt", name), element("dd", text));
  panel.append(element("h2", TEXTS[m.label[i]] || "(no name)"), list);
  row(isPacket ? "sent" : "at", seconds(m.at[i]));
  row(isPacket ? "from" : "host", LANES[m.lane[i]]);
  if (isPacket) {
    row("to", m.to[i] >= 0 ? LANES[m.to[i]] : "an address of no host");
    row("packet", `#${m.number[i]}, ${TEXTS[m.protocol[i]]}, ${m.bytes[i]} B of payload`);
    const first = m.firstEnd[i], last = m.firstEnd[i + 1];
    if (first === last) row("fate", "still under way when the run ended");
    for (let k = first; k < last; k++) {
      row(k === first ? "fate" : "copy", `${TEXTS[m.endText[k]]}, after ${millis(m.endAt[k] - m.at[i])}, at ${seconds(m.endAt[k])}`);
    }
    row("way", TEXTS[m.way[i]]);
  }
  if (TEXTS[m.text[i]]) panel.append(element("pre", TEXTS[m.text[i]]));
  if (isPacket && m.to[i] > 0 && m.to[i] !== m.lane[i]) {
    const both = element("button", `only ${LANES[m.lane[i]]} and ${LANES[m.to[i]]}`);
    both.addEventListener("click", () => { [filter.a, filter.b] = [m.lane[i], m.to[i]]; refilter(); });
    panel.append(both);
  }
}

// The nearest arrow or dot within some pixels.
function entryAt(x, y) {
  let best = -1, least = 8;
  for (const [i, dx, dy] of drawn.dots) {
    const far = Math.hypot(x - dx, y - dy) - 3;
    if (far < least) [best, least] = [i, far];
  }
  for (const [i, x0, y0, x1, y1] of drawn.segments) {
    const lengthen = (x1 - x0) ** 2 + (y1 - y0) ** 2 || 1;
    const at = Math.min(1, Math.max(0, ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / lengthen));
    const far = Math.hypot(x - x0 - at * (x1 - x0), y - y0 - at * (y1 - y0));
    if (far < least) [best, least] = [i, far];
  }
  return best;
}

function listen() {
  let drag = null;
  stage.addEventListener("pointerdown", (event) => {
    drag = { x: event.offsetX, y: event.offsetY, top: view.top, left: view.left, moved: false };
    stage.setPointerCapture(event.pointerId); stage.focus();
  });
  stage.addEventListener("pointermove", (event) => {
    if (!drag) { stage.style.cursor = entryAt(event.offsetX, event.offsetY) >= 0 ? "pointer" : "grab"; return; }
    drag.moved ||= Math.hypot(event.offsetX - drag.x, event.offsetY - drag.y) > 4;
    if (!drag.moved) return;
    view.top = drag.top - (event.offsetY - drag.y) * view.perPx; view.left = drag.left - (event.offsetX - drag.x);
    redraw();
  });
  stage.addEventListener("pointerup", (event) => {
    if (drag && !drag.moved) choose(entryAt(event.offsetX, event.offsetY));
    drag = null; keepAddress();
  });
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (event.ctrlKey || event.metaKey) zoomBy(Math.exp(event.deltaY * 0.003), event.offsetY);
    else {
      view.left += event.shiftKey ? event.deltaY : event.deltaX;
      moveBy(event.shiftKey ? 0 : event.deltaY * view.perPx);
    }
  }, { passive: false });
  const goTo = (event) => {
    if (!(event.buttons & 1)) return;
    view.top = event.offsetY / overview.clientHeight * scale().size - stagePx() / 2 * view.perPx;
    moveBy(0);
  };
  overview.addEventListener("pointerdown", (event) => { overview.setPointerCapture(event.pointerId); goTo(event); });
  overview.addEventListener("pointermove", goTo);
  overview.addEventListener("wheel", (event) => { event.preventDefault(); zoomBy(Math.exp(event.deltaY * 0.003)); }, { passive: false });
  const page = () => stagePx() * 0.9 * view.perPx;
  const keys = {
    ArrowDown: () => step(true), ArrowUp: () => step(false), ArrowRight: () => step(true, true), ArrowLeft: () => step(false, true),
    PageDown: () => moveBy(page()), PageUp: () => moveBy(-page()), Home: () => moveBy(-Infinity), End: () => moveBy(scale().size),
    "+": () => zoomBy(0.7), "=": () => zoomBy(0.7), "-": () => zoomBy(1.4), 0: () => showRange(0, scale().size),
    t: () => setScale(view.scale === "steps" ? "time" : "steps"), Escape: () => choose(-1), "/": () => $("search").focus(),
  };
  document.addEventListener("keydown", (event) => {
    if (event.target.matches("input[type=search], select") || event.ctrlKey || event.metaKey || event.altKey) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const act = keys[event.key];
    if (act) { event.preventDefault(); act(); }
  });
  const buttons = { previous: keys.ArrowUp, next: keys.ArrowDown, scale: keys.t, "zoom-in": keys["+"], "zoom-out": keys["-"], "zoom-all": keys[0], "to-broken": showBroken };
  for (const [id, act] of Object.entries(buttons)) $(id).addEventListener("click", act);
  new ResizeObserver(redraw).observe(stage);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColors(); paintIcons(); redraw(); });
  window.addEventListener("hashchange", () => { readAddress(location.hash.slice(1)); refilter(); showDetails(); });
}

function begin() {
  document.body.classList.toggle("broken", DATA.broken !== null);
  $("verdict").textContent = DATA.broken ? "broken" : "held";
  $("title").textContent = `${DATA.run}: ${DATA.title}`;
  $("seen").textContent = DATA.seen ? `seen: ${DATA.seen}` : "";
  $("about").textContent = DATA.about.join(" · ");
  $("to-broken").hidden = !DATA.broken;
  if (DATA.left_out) {
    $("left-out").hidden = false;
    $("left-out").textContent = `The ${DATA.left_out.toLocaleString("en")} oldest entries of this run were left out; the newest ${model.count.toLocaleString("en")} are here.`;
  }
  readColors(); makeFilters(); paintIcons(); listen();
  const isGiven = readAddress(ADDRESS);
  applyFilter(); showFilter(); showDetails();
  if (!isGiven) DATA.broken ? showBroken() : showRange(-1, Math.min(model.ranks, aboutRows(26)));
  drawNow();
}
begin();
