// Saves the picture as it is shown, with its map, and the neurons of the word.
import { at, none } from "./base.js";
import { now, onRender, shown, wordNow } from "./state.js";

const SVG = document.body.namespaceURI.replace("1999/xhtml", "2000/svg");
const SIDE = 640, TOP = 44, FOOT = 40;
const keep = (blob, kind) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${now().name.replace(/[^A-Za-z0-9]+/g, "-") || "picture"}.${kind}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
};
const xml = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
const colours = () => {
  const style = getComputedStyle(document.body);
  return { page: getComputedStyle(document.documentElement).backgroundColor, ink: style.color };
};

/** The picture, its map, title and line below, as SVG. */
const drawn = () => {
  const here = now(), tall = Math.round(SIDE / here.ratio), { page, ink } = colours();
  const [left, top, width, height] = here.window.map((part, i) => (part / 100) * (i % 2 ? tall : SIDE));
  const bare = at("bare").checked, grey = bare ? "" : ' style="filter:grayscale(1)"';
  const text = (y, size, words, bold) => `<text x="0" y="${y}" font-family="system-ui, sans-serif" font-size="${size}"`
    + `${bold ? ' font-weight="600"' : ""} fill="${ink}">${xml(words)}</text>`;
  const over = bare ? "" : `<image x="${left}" y="${TOP + top}" width="${width}" height="${height}" preserveAspectRatio="none"`
    + ` style="image-rendering:pixelated" href="${at("overlay").toDataURL()}"/>`;
  const span = `${at("low").textContent} to ${at("high").textContent}`;
  return { tall: tall + TOP + FOOT, text: `<svg xmlns="${SVG}" width="${SIDE + 32}" height="${tall + TOP + FOOT}" viewBox="-16 0 ${SIDE + 32} ${tall + TOP + FOOT}">`
    + `<rect x="-16" width="100%" height="100%" fill="${page}"/>${text(28, 17, at("map-title").textContent, true)}`
    + `<image x="0" y="${TOP}" width="${SIDE}" height="${tall}" preserveAspectRatio="none" href="${here.src}"${grey}/>${over}`
    + `${text(tall + TOP + 24, 13, bare ? "" : span)}</svg>` };
};
at("save-svg").addEventListener("click", () => keep(new Blob([drawn().text], { type: "image/svg+xml" }), "svg"));
at("save-png").addEventListener("click", async () => {
  const { text, tall } = drawn(), image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [2 * (SIDE + 32), 2 * tall];
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  canvas.toBlob((blob) => keep(blob, "png"));
});
at("save-csv").addEventListener("click", () => {
  const here = now(), word = wordNow(), cell = (value) => `"${String(value ?? "").replaceAll('"', '""')}"`;
  const lines = here.tops[word].map((row) => [row.neuron, row.score, row.patch?.[0], row.patch?.[1],
    (here.without?.[row.neuron] ?? [])[word]].map(cell).join(","));
  keep(new Blob([`neuron,score,row,column,probability without it\n${lines.join("\n")}\n`], { type: "text/csv" }), "csv");
});
onRender(() => { at("save-csv").title = none(shown().word) ? "" : "The neurons of the word"; });
