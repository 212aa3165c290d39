// Colours: hue is the sign, opacity the size; heat for what has no sign.
import { highest, made, none } from "./base.js";

const HEAT = [[87, 16, 110], [137, 34, 106], [188, 55, 84], [227, 89, 51], [249, 142, 9], [249, 201, 50]];
const heat = (t) => {
  const x = Math.min(Math.max(t, 0), 1) * (HEAT.length - 1), i = Math.min(Math.floor(x), HEAT.length - 2);
  return HEAT[i].map((c, k) => c + (x - i) * (HEAT[i + 1][k] - c));
};
const colour = (value, top, kind) => {
  if (none(value)) return [128, 128, 128, 120];
  const size = Math.min(Math.abs(value) / top, 1);
  if (kind === "signed") return [...(value >= 0 ? [31, 119, 255] : [255, 82, 46]), 217 * size];
  return value <= 0 ? [0, 0, 0, 0] : [...heat(size), 225 * size];
};

/** Paint a map, a pixel per patch. */
export const paint = (canvas, values, [rows, cols], top, kind) => {
  canvas.width = cols;
  canvas.height = rows;
  const pen = canvas.getContext("2d"), image = pen.createImageData(cols, rows);
  values.forEach((value, i) => image.data.set(colour(value, top, kind), 4 * i));
  pen.putImageData(image, 0, 0);
};

/** Draw the edge of what is above half of the largest value, white inside and black outside. */
const outline = (canvas, values, [rows, cols], top) => {
  const fine = Math.max(4, Math.ceil(180 / Math.max(rows, cols))), wide = cols * fine, tall = rows * fine;
  const at = (row, col) => Math.max(values[Math.min(Math.max(row, 0), rows - 1) * cols + Math.min(Math.max(col, 0), cols - 1)] || 0, 0);
  const on = (y, x) => {
    if (y < 0 || x < 0 || y >= tall || x >= wide) return false;
    const v = (y + 0.5) / fine - 0.5, u = (x + 0.5) / fine - 0.5, row = Math.floor(v), col = Math.floor(u);
    const [a, b] = [v - row, u - col];
    return (1 - a) * ((1 - b) * at(row, col) + b * at(row, col + 1)) + a * ((1 - b) * at(row + 1, col) + b * at(row + 1, col + 1)) > top / 2;
  };
  const lit = Array.from({ length: tall }, (_, y) => Array.from({ length: wide }, (_, x) => on(y, x)));
  [canvas.width, canvas.height] = [wide, tall];
  const pen = canvas.getContext("2d"), image = pen.createImageData(wide, tall);
  const near = [[-2, 0], [2, 0], [0, -2], [0, 2], [-1, -1], [1, 1], [1, -1], [-1, 1]];
  for (let y = 0; y < tall; y++) for (let x = 0; x < wide; x++) {
    const edge = near.some(([b, a]) => lit[y + b]?.[x + a] !== undefined && lit[y + b][x + a] !== lit[y][x]);
    if (edge) image.data.set(lit[y][x] ? [255, 255, 255, 255] : [0, 0, 0, 255], 4 * (y * wide + x));
  }
  pen.putImageData(image, 0, 0);
};

/** The colours from the lowest to the highest value, on mid-grey. */
export const gradient = (kind) => {
  const stops = [...Array(9).keys()].map((i) => {
    const [r, g, b, a] = colour(kind === "signed" ? i / 4 - 1 : i / 8, 1, kind), f = a / 255;
    return `rgb(${[r, g, b].map((c) => Math.round(c * f + 150 * (1 - f))).join(" ")})`;
  });
  return `linear-gradient(90deg, ${stops.join(", ")})`;
};

/** Lay a frame around a patch, or take it away. */
export const frame = (cell, patch, [rows, cols]) => {
  cell.hidden = !patch;
  if (!patch) return;
  cell.style.left = `${100 * patch[1] / cols}%`;
  cell.style.top = `${100 * patch[0] / rows}%`;
  cell.style.width = `${100 / cols}%`;
  cell.style.height = `${100 / rows}%`;
};

/** Put what the encoder sees in its place on the picture. */
export const place = (node, [left, top, width, height]) => {
  node.style.left = `${left}%`;
  node.style.top = `${top}%`;
  node.style.width = `${width}%`;
  node.style.height = `${height}%`;
};

/** A small grey picture under a map of activations, a patch framed; or as it is, the map an outline. */
export const mini = (photo, values, grid, patch, cls = "mini", asIs = false) => {
  const box = made("span", photo.sharp ? `${cls} sharp` : cls);
  box.style.setProperty("--ratio", photo.ratio);
  box.classList.toggle("list", photo.drawn === "list");
  const image = made("img"), over = made("span", "window");
  image.src = photo.src;
  image.alt = "";
  place(over, photo.window);
  if (values) {
    const canvas = made("canvas");
    if (asIs) outline(canvas, values, grid, highest(values));
    else paint(canvas, values, grid, highest(values), "heat");
    over.append(canvas);
  }
  if (patch) {
    const cell = made("span", "cell");
    frame(cell, patch, grid);
    over.append(cell);
  }
  box.append(image, over);
  return box;
};
