// The peaks of a unit over pictures, and the labels that go with them.
import { bare } from "./base.js";

const NS = "http://www.w3.org/2000/svg", W = 480, LEFT = 44, RIGHT = 10;
const svg = (tag, attributes = {}, text = "") => {
  const node = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.textContent = text;
  return node;
};
const x = (share) => LEFT + share * (W - LEFT - RIGHT);

const ticks = (low, high, most = 5) => {
  const rough = (high - low) / most || 1, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const out = [];
  for (let i = Math.ceil(low / step); i * step <= high + 1e-9 * step; i += 1) out.push(i * step);
  return out;
};

const axis = (chart, low, high, y, labelled) => {
  chart.append(svg("line", { x1: LEFT, x2: W - RIGHT, y1: y, y2: y, class: "axis" }));
  if (!labelled || high <= low) return;
  for (const value of ticks(low, high)) {
    const at = x((value - low) / (high - low));
    chart.append(svg("line", { x1: at, x2: at, y1: y, y2: y + 4, class: "axis" }));
    chart.append(svg("text", { x: at, y: y + 17, class: "tick", "text-anchor": "middle" }, bare(value)));
  }
};

/** Pictures per bin on a logarithmic scale; the bars of a label in front of those of all. */
export const histogram = ([low, high, counts], label, colour, last) => {
  const H = last ? 132 : 110, top = 8, foot = 110, chart = svg("svg", { viewBox: `0 0 ${W} ${H}`, class: "chart", role: "img" });
  const tallest = Math.max(...counts), tall = (n) => (n ? (foot - top) * Math.log1p(n) / Math.log1p(tallest) : 0);
  const wide = (W - LEFT - RIGHT) / counts.length;
  chart.append(svg("title", {}, `Pictures by peak, from ${bare(low)} to ${bare(high)}`));
  for (const n of [1, 10, 100, 1000, 10000].filter((one) => one <= tallest)) {
    const y = foot - tall(n);
    chart.append(svg("line", { x1: LEFT, x2: W - RIGHT, y1: y, y2: y, class: "grid" }));
    chart.append(svg("text", { x: LEFT - 6, y: y + 4, class: "tick", "text-anchor": "end" }, String(n)));
  }
  counts.forEach((n, i) => {
    const bar = svg("rect", { x: LEFT + i * wide + 0.75, y: foot - tall(n), width: wide - 1.5, height: tall(n), class: "bars" });
    bar.append(svg("title", {}, `${n} pictures`));
    chart.append(bar);
    const own = label ? label[i] : 0;
    if (own) chart.append(svg("rect", { x: LEFT + i * wide + 0.75, y: foot - tall(own), width: wide - 1.5, height: tall(own), fill: colour }));
  });
  axis(chart, low, high, foot, last);
  return chart;
};

/** Of the pictures in each bin, the share that has a label; a dot is larger where there are more. */
export const shares = ([low, high, counts], labels, colours, chosen) => {
  const top = 8, foot = 120, chart = svg("svg", { viewBox: `0 0 ${W} 142`, class: "chart", role: "img" });
  chart.append(svg("title", {}, "Share of the pictures in each bin that have a label"));
  const y = (share) => foot - share * (foot - top);
  for (const share of [0, 0.5, 1]) {
    chart.append(svg("line", { x1: LEFT, x2: W - RIGHT, y1: y(share), y2: y(share), class: "grid" }));
    chart.append(svg("text", { x: LEFT - 6, y: y(share) + 4, class: "tick", "text-anchor": "end" }, `${100 * share} %`));
  }
  axis(chart, low, high, foot, true);
  const order = labels.map((_, i) => i).sort((a, b) => (a === chosen) - (b === chosen));
  for (const i of order) {
    const points = counts.flatMap((n, bin) => (n ? [[x((bin + 0.5) / counts.length), y(labels[i][3][bin] / n), n, labels[i][3][bin]]] : []));
    const group = svg("g", { class: i === chosen ? "line chosen" : "line", stroke: colours[i], fill: colours[i] });
    group.append(svg("polyline", { points: points.map(([a, b]) => `${a},${b}`).join(" "), fill: "none" }));
    for (const [a, b, n, own] of points) {
      const dot = svg("circle", { cx: a, cy: b, r: Math.min(1.6 + Math.log2(n) * 0.4, 4.5) });
      dot.append(svg("title", {}, `${own} of ${n} pictures`));
      group.append(dot);
    }
    chart.append(group);
  }
  return chart;
};
