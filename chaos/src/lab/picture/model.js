"use strict";
// The data of a run as typed arrays, and which entries a filter shows.

// The address with which the page was opened.
const ADDRESS = location.hash.slice(1);
const DATA = JSON.parse(document.getElementById("data").textContent);
const LANES = DATA.lanes, TEXTS = DATA.texts;
const SCENARIO = 0;
// The kinds of entry, by their numbers in the data.
const PACKET = 0, EVENT = 1, FAULT = 2, NOTE = 3, MARK = 4, PHASE = 5;
// What becomes of a packet, by the numbers in the data; the last two have none there.
const FATES = [
  { name: "arrived", color: "--arrived", dash: [] },
  { name: "arrived damaged", color: "--damaged", dash: [9, 3] },
  { name: "lost on a link", color: "--lost", dash: [5, 3] },
  { name: "lost by a partition", color: "--cut", dash: [2, 3] },
  { name: "dropped by a box", color: "--box", dash: [5, 3] },
  { name: "dropped, queue full", color: "--queue", dash: [5, 3] },
  { name: "nobody received it", color: "--unreceived", dash: [5, 3] },
  { name: "still under way", color: "--flying", dash: [1, 4] },
  { name: "duplicated", color: "--arrived", dash: [] },
];
const ARRIVED = 0, DAMAGED = 1, CUT = 3, UNRECEIVED = 6, UNDER_WAY = 7, DUPLICATED = 8;

const model = (() => {
  const e = DATA.entries, x = DATA.ends, count = e.rank.length, ends = x.rank.length;
  const m = {
    count,
    at: new Float64Array(count), rank: Float64Array.from(e.rank),
    kind: Uint8Array.from(e.kind), lane: Uint32Array.from(e.lane), to: Int32Array.from(e.to),
    label: Uint32Array.from(e.label), text: Uint32Array.from(e.text), way: Uint32Array.from(e.way),
    protocol: Uint32Array.from(e.protocol), bytes: Uint32Array.from(e.bytes), number: Float64Array.from(e.number),
    // The ends of entry i are those from firstEnd[i] to firstEnd[i + 1].
    firstEnd: new Uint32Array(count + 1),
    endAt: new Float64Array(ends), endRank: Float64Array.from(x.rank), endLane: Int32Array.from(x.lane),
    endKind: Uint8Array.from(x.kind), endText: Uint32Array.from(x.text),
    fate: new Uint8Array(count).fill(255),
    // When the last end was; for an entry without one its own moment, or the run's end for a packet under way.
    lastAt: new Float64Array(count), lastRank: new Float64Array(count),
    happenings: count + ends, messages: 0,
  };
  let now = 0;
  for (let i = 0; i < count; i++) m.at[i] = now += e.step_ns[i];
  for (let k = 0; k < ends; k++) {
    m.firstEnd[x.entry[k] + 1]++;
    m.endAt[k] = m.at[x.entry[k]] + x.after_ns[k];
  }
  for (let i = 0; i < count; i++) m.firstEnd[i + 1] += m.firstEnd[i];
  let lastRank = 0;
  for (let i = 0; i < count; i++) lastRank = Math.max(lastRank, m.rank[i]);
  for (let k = 0; k < ends; k++) lastRank = Math.max(lastRank, m.endRank[k]);
  m.ranks = lastRank + 1;
  // The time of each rank, for the axis.
  m.moments = new Float64Array(m.ranks);
  for (let i = 0; i < count; i++) {
    m.moments[m.rank[i]] = m.at[i];
    m.lastAt[i] = m.at[i];
    m.lastRank[i] = m.rank[i];
    if (m.kind[i] !== PACKET) continue;
    m.messages++;
    const first = m.firstEnd[i], last = m.firstEnd[i + 1];
    m.fate[i] = first < last ? m.endKind[first] : UNDER_WAY;
    if (first === last) [m.lastAt[i], m.lastRank[i]] = [DATA.ended_ns, m.ranks];
    for (let k = first; k < last; k++) {
      m.moments[m.endRank[k]] = m.endAt[k];
      m.lastAt[i] = Math.max(m.lastAt[i], m.endAt[k]);
      m.lastRank[i] = Math.max(m.lastRank[i], m.endRank[k]);
    }
  }
  // A rank without an entry, such as a fault's end, has the time before it.
  for (let r = 1; r < m.ranks; r++) m.moments[r] = Math.max(m.moments[r], m.moments[r - 1]);
  return Object.freeze(m);
})();

// Long flights begin before the view, so the search for them looks at the last end of whole blocks of entries.
const BLOCK = 256;
const blockEnds = (last) => {
  const all = new Float64Array(Math.ceil(model.count / BLOCK));
  for (let i = 0; i < model.count; i++) all[i / BLOCK | 0] = Math.max(all[i / BLOCK | 0], last[i]);
  return all;
};

// The two scales: one step for each happening, or true time in nanoseconds.
const SCALES = {
  steps: { begin: model.rank, last: model.lastRank, end: model.endRank, size: model.ranks, of: (ranks) => ranks },
  time: { begin: model.at, last: model.lastAt, end: model.endAt, size: DATA.ended_ns + 1, of: (_, times) => times },
};
for (const scale of Object.values(SCALES)) scale.blocks = blockEnds(scale.last);

// The first place in a sorted array whose value is at least `wanted`.
function lowerBound(array, wanted) {
  let low = 0, high = array.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (array[middle] < wanted) low = middle + 1; else high = middle;
  }
  return low;
}

// The kinds that the reader can choose: labels of entries, with their counts, the most frequent first.
const labels = (() => {
  const counts = new Map();
  for (let i = 0; i < model.count; i++) {
    const known = counts.get(model.label[i]);
    if (known) known.count++; else counts.set(model.label[i], { label: model.label[i], kind: model.kind[i], count: 1 });
  }
  return [...counts.values()].sort((a, b) => a.kind - b.kind || b.count - a.count);
})();
const fateCounts = (() => {
  const counts = new Array(FATES.length).fill(0);
  for (let i = 0; i < model.count; i++) {
    if (model.kind[i] !== PACKET) continue;
    counts[model.fate[i]]++;
    if (model.firstEnd[i + 1] - model.firstEnd[i] > 1) counts[DUPLICATED]++;
  }
  return counts;
})();

// The filter: what is hidden, by numbers of lanes, labels and fates; two peers or -1; a text.
const filter = { lanes: new Set(), labels: new Set(), fates: new Set(), a: -1, b: -1, text: "" };
// Which entries it shows, and their numbers in order.
const shown = { is: new Uint8Array(model.count), all: new Uint32Array(0), messages: 0 };
const lowered = { texts: null };

function textsWith(word) {
  lowered.texts ??= TEXTS.map((text) => text.toLowerCase());
  const has = new Uint8Array(TEXTS.length);
  for (let k = 0; k < has.length; k++) has[k] = lowered.texts[k].includes(word) ? 1 : 0;
  return has;
}

function isBetween(i) {
  const { a, b } = filter, from = model.lane[i], to = model.to[i];
  if (a < 0 && b < 0) return true;
  if (model.kind[i] !== PACKET) return from === SCENARIO || from === a || from === b;
  if (a < 0 || b < 0) return from === Math.max(a, b) || to === Math.max(a, b);
  return (from === a && to === b) || (from === b && to === a);
}

function applyFilter() {
  const flags = (hidden, size) => {
    const all = new Uint8Array(size);
    for (const place of hidden) all[place] = 1;
    return all;
  };
  const noLane = flags(filter.lanes, LANES.length), noLabel = flags(filter.labels, TEXTS.length);
  const noFate = flags(filter.fates, 256), word = filter.text.trim().toLowerCase();
  const number = /^#\d+$/.test(word) ? Number(word.slice(1)) : -1;
  const has = word && number < 0 ? textsWith(word) : null;
  const m = model, all = new Uint32Array(m.count);
  let count = 0, messages = 0;
  for (let i = 0; i < m.count; i++) {
    let is = !noLane[m.lane[i]] && !noLabel[m.label[i]] && isBetween(i);
    if (is && m.kind[i] === PACKET) {
      is = !noFate[m.fate[i]] && !(m.to[i] >= 0 && noLane[m.to[i]]);
      if (is && noFate[DUPLICATED]) is = m.firstEnd[i + 1] - m.firstEnd[i] < 2;
    }
    if (is && number >= 0) is = m.kind[i] === PACKET && m.number[i] === number;
    if (is && has) {
      is = has[m.text[i]] || has[m.label[i]] || has[m.way[i]] || has[m.protocol[i]];
      for (let k = m.firstEnd[i]; !is && k < m.firstEnd[i + 1]; k++) is = has[m.endText[k]];
    }
    shown.is[i] = is ? 1 : 0;
    if (is) {
      all[count++] = i;
      if (m.kind[i] === PACKET) messages++;
    }
  }
  shown.all = all.subarray(0, count);
  shown.messages = messages;
}

const seconds = (ns) => (ns / 1e9).toFixed(9).replace(/(\.\d{3}\d*?)0+$/, "$1") + " s";
const millis = (ns) => ns < 1e5 ? `${(ns / 1e3).toFixed(1)} µs` : `${(ns / 1e6).toFixed(ns < 1e9 ? 2 : 0)} ms`;
