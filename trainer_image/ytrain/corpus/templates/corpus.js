"use strict";
// Puts data on screen as text only, never as HTML: the records may hold anything.
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const PAGE = 15, PALETTE = ["#2f7fd6", "#d9731a", "#1f8a5b", "#b0418f", "#7a4fd0", "#a08212", "#1a9aa8", "#c0564a"];
let shown = data.samples, current = 0, colour = "divergence";

function make(tag, text, classes) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (classes) element.className = classes;
  return element;
}
function draw(tag, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

// Colours: loss and entropy from clear to strong, divergence from blue (safer than usual) to red (sure of another).
const TOP = { loss: 6, entropy: 4, divergence: 6 };
const HUE = { loss: "200, 50, 31", entropy: "122, 79, 208" };
function paint(value) {
  const share = Math.min(1, Math.abs(value) / TOP[colour]);
  if (colour !== "divergence") return `rgba(${HUE[colour]}, ${(share * 0.7).toFixed(2)})`;
  return value >= 0 ? `rgba(200, 50, 31, ${(share * 0.75).toFixed(2)})` : `rgba(47, 127, 214, ${(share * 0.6).toFixed(2)})`;
}
function legend() {
  const box = make("div", undefined, "scale"), bar = make("i"), low = colour === "divergence" ? -TOP[colour] : 0;
  const stops = [0, 1, 2, 3, 4].map((step) => paint(low + (step / 4) * (TOP[colour] - low)));
  bar.style.background = `linear-gradient(90deg, ${stops.join(", ")})`;
  const unit = colour === "divergence" ? "z(loss) - z(entropy)" : "nats";
  const marks = data.spanThreshold === null ? "" : "; underlined: suspicious span";
  box.append(make("span", `${colour}: ${low}`), bar, make("span", `${TOP[colour]} ${unit}${marks}`));
  return box;
}

function showRecord() {
  const box = at("record"), sample = shown[current];
  box.replaceChildren();
  if (!sample) { box.append(make("p", "No record here.", "soft")); return; }
  const head = make("h3", `#${sample.rank}  ${sample.place}`);
  box.append(head);
  const facts = make("p", undefined, "soft small"), [loss, entropy, divergence] = sample.scores;
  if (sample.class) facts.append(make("span", "", `mark ${sample.class}`), `${data.titles[sample.class]} · `);
  facts.append(`loss ${loss} · entropy ${entropy} · divergence ${divergence}`);
  if (sample.cluster !== null) facts.append(sample.cluster < 0 ? " · no cluster" : ` · cluster ${sample.cluster}`);
  facts.append(sample.leftOut ? ` · left out of cleaned.jsonl (${sample.leftOut})` : " · kept");
  box.append(facts, make("div", sample.prompt, "prompt"));
  const tokens = make("div", undefined, "tokens"), marked = new Set();
  for (const [begin, end] of sample.spans) for (let i = begin; i < end; i++) marked.add(i);
  sample.tokens.forEach((text, i) => {
    const token = make("span", text, marked.has(i) ? "span" : "");
    token.style.background = paint(sample[colour][i]);
    token.title = `loss ${sample.loss[i]}, entropy ${sample.entropy[i]}, divergence ${sample.divergence[i]}`;
    tokens.append(token);
  });
  box.append(tokens, legend());
  if (sample.reasons.length) {
    const list = make("ul");
    sample.reasons.forEach((reason) => list.append(make("li", reason)));
    box.append(list);
  }
}

function showList() {
  const first = Math.floor(current / PAGE) * PAGE, list = at("list");
  list.replaceChildren();
  shown.slice(first, first + PAGE).forEach((sample, i) => {
    const item = make("li"), button = make("button");
    button.type = "button";
    button.setAttribute("aria-current", String(first + i === current));
    const answer = sample.tokens.join("").trim();
    button.append(make("span", sample.rank, "soft"), make("span", answer || "(empty)", "words"));
    const score = make("span", sample.scores[2].toFixed(1), "soft");
    if (sample.class) {
      score.prepend(make("span", "", `mark ${sample.class}`));
      button.title = data.titles[sample.class];
    }
    button.append(score);
    button.addEventListener("click", () => { current = first + i; show(); at("list").children[i].firstChild.focus(); });
    item.append(button);
    list.append(item);
  });
  at("position").textContent = shown.length ? `${current + 1} of ${shown.length}` : "none";
  at("before").disabled = current === 0;
  at("after").disabled = current >= shown.length - 1;
}
function show() { showList(); showRecord(); }
function move(by) { current = Math.max(0, Math.min(shown.length - 1, current + by)); show(); }
function choose(name) {
  colour = name;
  for (const button of at("colours").children) button.setAttribute("aria-pressed", String(button.dataset.colour === name));
  showRecord();
}
function filter() {
  const wanted = at("class").value, cluster = at("cluster").value, words = at("search").value.toLowerCase();
  shown = data.samples.filter((sample) => (!wanted || sample.class === wanted) && (!cluster || String(sample.cluster) === cluster) &&
    (!words || (sample.prompt + sample.tokens.join("") + sample.place).toLowerCase().includes(words)));
  current = 0;
  show();
}

function choice(id, values, words) {
  at(`${id}-choice`).hidden = !values.length;
  for (const value of values) {
    const option = make("option", words(value));
    option.value = value;
    at(id).append(option);
  }
  at(id).addEventListener("change", filter);
}
choice("class", data.classes, (name) => data.titles[name]);
choice("cluster", data.clusters.map((cluster) => cluster.name).sort((a, b) => a - b), String);
at("search").addEventListener("input", filter);
at("before").addEventListener("click", () => move(-1));
at("after").addEventListener("click", () => move(1));
for (const button of at("colours").children) button.addEventListener("click", () => choose(button.dataset.colour));
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || ["INPUT", "SELECT"].includes(event.target.tagName)) return;
  if (event.key === "j" || event.key === "ArrowRight") move(1);
  else if (event.key === "k" || event.key === "ArrowLeft") move(-1);
  else if ("123".includes(event.key)) choose(["divergence", "loss", "entropy"][Number(event.key) - 1]);
  else return;
  event.preventDefault();
});

function axes(svg, size, label, horizontal) {
  for (const z of [-4, -2, 0, 2, 4]) {
    const place = 30 + ((z + 4) / 8) * (size - 40);
    svg.append(draw("text", horizontal ? { x: place, y: size - 4, "text-anchor": "middle" } : { x: 24, y: size - place + 4, "text-anchor": "end" }, z));
  }
  svg.append(draw("text", horizontal ? { x: size - 10, y: size - 20, "text-anchor": "end" } : { x: 36, y: 18 }, label));
}
function grid() {
  const size = 400, cell = (size - 40) / 40, svg = draw("svg", { viewBox: `0 0 ${size} ${size}`, role: "img", "aria-label": "records by z of loss and z of entropy" });
  const most = Math.max(1, ...data.grid.map((entry) => entry[2]));
  for (const [x, y, count] of data.grid) {
    const box = draw("rect", { x: 30 + x * cell, y: size - 30 - (y + 1) * cell, width: cell, height: cell, fill: "var(--c1)", "fill-opacity": 0.15 + 0.85 * Math.log1p(count) / Math.log1p(most) });
    box.append(draw("title", {}, `${count} records`));
    svg.append(box);
  }
  if (data.threshold !== null) for (const z of [-data.threshold, data.threshold]) {
    const place = ((z + 4) / 8) * (size - 40);
    svg.append(draw("line", { x1: 30 + place, x2: 30 + place, y1: 10, y2: size - 30, stroke: "var(--soft)", "stroke-dasharray": "3 4" }));
    svg.append(draw("line", { x1: 30, x2: size - 10, y1: size - 30 - place, y2: size - 30 - place, stroke: "var(--soft)", "stroke-dasharray": "3 4" }));
  }
  axes(svg, size, "z(loss)", true);
  axes(svg, size, "z(entropy)", false);
  const corners = { likelyWrongLabel: [size - 12, size - 40], hard: [size - 12, 24], lucky: [36, 36], overConfident: [36, size - 40] };
  for (const name of data.classes) if (corners[name]) {
    const [x, y] = corners[name];
    svg.append(draw("text", { x, y, "text-anchor": x > 100 ? "end" : "start", class: `corner ${name}` }, data.titles[name]));
  }
  at("grid").append(svg);
}
function histogram(axis, name) {
  const counts = Array(40).fill(0), svg = draw("svg", { viewBox: "0 0 400 180", role: "img", "aria-label": `distribution of ${name}` });
  for (const entry of data.grid) counts[entry[axis]] += entry[2];
  const most = Math.max(1, ...counts);
  counts.forEach((count, i) => {
    const height = (130 * count) / most, bar = draw("rect", { x: 30 + 9 * i, y: 145 - height, width: 8, height, fill: axis ? "#7a4fd0" : "#c8321f" });
    bar.append(draw("title", {}, `${count} records`));
    svg.append(bar);
  });
  for (const z of [-4, -2, 0, 2, 4]) svg.append(draw("text", { x: 30 + ((z + 4) / 8) * 360, y: 162, "text-anchor": "middle" }, z));
  svg.append(draw("text", { x: 390, y: 14, "text-anchor": "end" }, name));
  at("histograms").append(svg);
}
function clusters() {
  if (!data.map.length) return;
  at("clusters").hidden = false;
  const svg = draw("svg", { viewBox: "0 0 600 380", role: "img", "aria-label": "map of the clusters" });
  const xs = data.map.map((point) => point[0]), ys = data.map.map((point) => point[1]);
  const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  for (const [x, y, cluster, kind] of data.map) {
    const dot = draw("circle", { cx: 10 + (580 * (x - x0)) / (x1 - x0 || 1), cy: 370 - (360 * (y - y0)) / (y1 - y0 || 1), r: 3.2, "fill-opacity": 0.65, fill: cluster < 0 ? "#8a94a3" : PALETTE[cluster % PALETTE.length] });
    if (kind === 0) { dot.setAttribute("stroke", "#c8321f"); dot.setAttribute("stroke-width", 2); }
    dot.append(draw("title", {}, cluster < 0 ? "no cluster" : `cluster ${cluster}`));
    svg.append(dot);
  }
  at("map").append(svg);
  for (const cluster of data.clusters) {
    const row = make("tr"), name = make("th", cluster.name), mark = make("span", "", "mark"), cell = make("td");
    mark.style.background = PALETTE[cluster.name % PALETTE.length];
    name.prepend(mark);
    for (const text of cluster.representatives) cell.append(make("div", text, "standing"));
    row.append(name);
    for (const [title, figure] of [["records", cluster.records], ["likely wrong", cluster.wrong], ["loss", cluster.loss]]) {
      const number = make("td", figure, "number");
      number.dataset.name = title;
      row.append(number);
    }
    row.append(cell);
    at("cluster-table").tBodies[0].append(row);
  }
}
function pairs() {
  if (!data.pairs.length) return;
  at("duplicates").hidden = false;
  at("pairs-count").textContent = `The first ${data.pairs.length}; all of them carry duplicateOf in scored.jsonl.`;
  for (const pair of data.pairs) {
    const row = make("div", undefined, "pair");
    for (const [place, text] of [[pair.firstPlace, pair.first], [pair.againPlace, pair.again]]) {
      const card = make("section", undefined, "card");
      card.append(make("p", place, "soft small"), make("div", text));
      row.append(card);
    }
    at("pairs").append(row);
  }
}
grid(); histogram(0, "z(loss)"); histogram(1, "z(entropy)"); clusters(); pairs(); show();
