// The page's test of itself. With `#check` as its address it tries filters, keys and scales on itself and writes what it found into the
// page, a line each; with `#check=arrows` also every message, for a comparison with the trace. `ci/picture` reads that.

// What the page shows, for programs that look at it.
window.picture = Object.freeze({
  lanes: () => LANES.slice(),
  counts: () => ({
    entries: model.count, messages: model.messages, ends: model.endRank.length, faults: DATA.faults.length, gaps: DATA.gaps.length,
    shown: shown.all.length, shownMessages: shown.messages, inView: drawn.inView, leftOut: DATA.left_out,
  }),
  // The arrows in view, by the numbers of their packets.
  arrows: () => drawn.segments.map(([i, , , , , k]) => ({
    number: model.number[i], from: LANES[model.lane[i]], to: LANES[model.to[i]] ?? null, fate: FATES[k < 0 ? UNDER_WAY : model.endKind[k]].name,
  })),
});

(() => {
  const asked = new URLSearchParams(ADDRESS).get("check");
  if (asked === null) return;
  const opened = performance.now(), lines = [];
  const ok = (is, what) => lines.push(`${is ? "ok" : "FAILED"} ${what}`);
  const m = model, indexes = Array.from({ length: m.count }, (_, i) => i), isMessage = (i) => m.kind[i] === PACKET;
  // A pixel is read, so that all has been painted.
  const painted = () => pen.getImageData(0, 0, 1, 1);
  let slowest = 0;
  // Filters as a reader does it; compares with a plain count over the data.
  const filtered = (what, set, is) => {
    clearFilter(); set();
    const begun = performance.now();
    applyFilter(); showFilter(); drawNow(); painted();
    slowest = Math.max(slowest, performance.now() - begun);
    const wanted = indexes.filter(is);
    const same = wanted.length === shown.all.length && wanted.every((i, at) => shown.all[at] === i);
    const seen = drawn.segments.every(([i]) => is(i)) && drawn.dots.every(([i]) => is(i));
    ok(same && seen, `${what}: ${shown.all.length} of ${m.count}`);
  };
  painted();
  lines.push(`entries ${m.count}, messages ${m.messages}, ends ${m.endRank.length}, left out ${DATA.left_out}`);
  LANES.slice(1).forEach((name) => lines.push(`lane ${name}`));

  view.scale = "steps"; showRange(0, SCALES.steps.size); filtered("nothing is hidden", () => {}, () => true);
  const whole = drawn.segments.length, colored = new Set();
  const data = pen.getImageData(0, 0, stage.width, stage.height).data;
  for (let at = 0; at < data.length; at += 4) colored.add(data[at] << 16 | data[at + 1] << 8 | data[at + 2]);
  ok(m.messages === 0 || (whole > 0 && colored.size > 3), `arrows are drawn: ${whole} in ${colored.size} colours`);

  const first = indexes.find((i) => isMessage(i) && m.to[i] > 0 && m.to[i] !== m.lane[i]);
  if (first !== undefined) {
    const a = m.lane[first], b = m.to[first], word = TEXTS[m.text[first]].split(" ").pop().toLowerCase();
    const has = (text) => text.toLowerCase().includes(word);
    filtered(`without host ${LANES[a]}`, () => filter.lanes.add(a), (i) => m.lane[i] !== a && m.to[i] !== a);
    filtered(`between ${LANES[a]} and ${LANES[b]}`, () => Object.assign(filter, { a, b }), (i) => isMessage(i)
      ? (m.lane[i] === a && m.to[i] === b) || (m.lane[i] === b && m.to[i] === a) : [SCENARIO, a, b].includes(m.lane[i]));
    filtered(`without the kind ${TEXTS[m.label[first]]}`, () => filter.labels.add(m.label[first]), (i) => m.label[i] !== m.label[first]);
    filtered("without messages that arrived", () => filter.fates.add(ARRIVED), (i) => !isMessage(i) || m.fate[i] !== ARRIVED);
    filtered(`with the number #${m.number[first]}`, () => { filter.text = `#${m.number[first]}`; }, (i) => isMessage(i) && m.number[i] === m.number[first]);
    if (word) filtered(`with the text ${word}`, () => { filter.text = word; }, (i) => [m.text[i], m.label[i], m.way[i], m.protocol[i]].some((t) => has(TEXTS[t]))
      || DATA.ends.text.slice(m.firstEnd[i], m.firstEnd[i + 1]).some((t) => has(TEXTS[t])));

    // The address keeps a view, and gives it back.
    clearFilter(); filter.lanes.add(a); filter.labels.add(m.label[first]); filter.text = word; view.chosen = first; applyFilter();
    keepAddress();
    const address = location.hash.slice(1), before = shown.all.length;
    clearFilter(); view.chosen = -1; readAddress(address); applyFilter();
    ok(shown.all.length === before && view.chosen === first && filter.lanes.has(a), `the address keeps the view: ${address.slice(0, 60)}`);
  }

  // Keys step through all that is shown, in order.
  clearFilter(); applyFilter(); choose(-1); view.top = 0; view.perPx = 0.05; drawNow();

  stage.focus();
  const visited = [];
  for (let n = 0; n < Math.min(50, m.count); n++) { stage.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowDown", bubbles: true })); visited.push(view.chosen); }
  ok(visited.every((i, at) => i === shown.all[at]), `keys step through ${visited.length} events`);
  ok(m.count === 0 || $("chosen").textContent.includes(seconds(m.at[view.chosen])), "the details tell the chosen event");
  stage.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
  ok(view.chosen === -1, "nothing is chosen after Escape");

  // Both scales have the same entries, whatever part is in view.
  for (const name of ["steps", "time"]) {
    view.scale = name;
    const { begin, last, size } = SCALES[name];
    for (const part of [0, 0.37, 0.9]) {
      showRange(size * part, size * (part + 0.02));
      draw();
      const from = positionAt(HEAD_PX), to = positionAt(view.height);
      const wanted = indexes.filter((i) => begin[i] <= to && last[i] >= from).length;
      ok(drawn.inView === wanted, `in ${name} from ${part}: ${drawn.inView} in view, ${wanted} wanted`);
    }
  }
  view.scale = "steps"; clearFilter(); applyFilter(); showFilter(); drawNow();
  if (asked === "arrows") {
    for (const i of indexes.filter(isMessage)) {
      lines.push(`sent #${m.number[i]} ${LANES[m.lane[i]]} ${(m.at[i] / 1e9).toFixed(9)}`);
      for (let k = m.firstEnd[i]; k < m.firstEnd[i + 1]; k++) {
        const is = [ARRIVED, DAMAGED].includes(m.endKind[k]) ? "delivered" : "dropped";
        lines.push(`${is} #${m.number[i]} ${m.endLane[k] < 0 ? "box" : LANES[m.endLane[k]]} ${(m.endAt[k] / 1e9).toFixed(9)}`);
      }
    }
  }
  lines.push(`opened_ms ${opened.toFixed(0)}`, `filtered_ms ${slowest.toFixed(0)}`, "check ended");
  document.body.append(Object.assign(document.createElement("pre"), { id: "check", textContent: lines.join("\n") }));
})();
