// Pictures, and where on them a unit is active: dim outside, an outline between.
import { at, made } from "./base.js";
import { pictureOf } from "./store.js";

const LEVELS = 15, HALF = LEVELS / 2;

const unpacked = (text, [rows, cols]) => {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0)), flat = new Float32Array(rows * cols);
  for (let i = 0; i < flat.length; i += 1) flat[i] = i % 2 ? bytes[i >> 1] & 15 : bytes[i >> 1] >> 4;
  return flat;
};

/** The map between its cells' centres, linear, at the centre of every pixel. */
const finer = (map, [rows, cols], width, height) => {
  const out = new Float32Array(width * height);
  const clamp = (value, most) => Math.min(Math.max(value, 0), most);
  for (let y = 0; y < height; y += 1) {
    const v = clamp((y + 0.5) * rows / height - 0.5, rows - 1), r = Math.floor(v), s = Math.min(r + 1, rows - 1);
    for (let x = 0; x < width; x += 1) {
      const u = clamp((x + 0.5) * cols / width - 0.5, cols - 1), c = Math.floor(u), d = Math.min(c + 1, cols - 1);
      const upper = map[r * cols + c] * (1 - u + c) + map[r * cols + d] * (u - c);
      const lower = map[s * cols + c] * (1 - u + c) + map[s * cols + d] * (u - c);
      out[y * width + x] = upper * (1 - v + r) + lower * (v - r);
    }
  }
  return out;
};

/** Darken what is outside, and draw a light line with a dark one around it at the border. */
const mask = (canvas, text, grid) => {
  const width = canvas.width, height = canvas.height, pen = canvas.getContext("2d");
  const fine = finer(unpacked(text, grid), grid, width, height), image = pen.createImageData(width, height);
  const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && fine[y * width + x] > HALF;
  const thick = Math.max(1, Math.round(width / 130));
  const near = (x, y, wanted, far) => {
    for (let step = 1; step <= far; step += 1)
      if (inside(x + step, y) === wanted || inside(x - step, y) === wanted || inside(x, y + step) === wanted || inside(x, y - step) === wanted) return true;
    return false;
  };
  for (let y = 0; y < height; y += 1)
    for (let x = 0; x < width; x += 1) {
      const here = inside(x, y), edge = x < thick || y < thick || x >= width - thick || y >= height - thick;
      let colour = [0, 0, 0, 0];
      if (here) colour = !edge && near(x, y, false, thick) ? [255, 255, 255, 255] : colour;
      else colour = near(x, y, true, thick) ? [0, 0, 0, 255] : [10, 12, 15, 150];
      image.data.set(colour, 4 * (y * width + x));
    }
  pen.putImageData(image, 0, 0);
};

/** A picture of the site under the map of a unit. */
export const masked = (number, name, map, grid) => {
  const box = made("span", "shot"), image = made("img");
  image.src = pictureOf(number);
  image.alt = name;
  image.loading = "lazy";
  box.append(image);
  if (map && grid) {
    const canvas = made("canvas");
    canvas.setAttribute("aria-hidden", "true");
    const draw = () => {
      const zoom = 300 / Math.max(image.naturalWidth, image.naturalHeight, 1);
      canvas.width = Math.max(1, Math.round(image.naturalWidth * zoom));
      canvas.height = Math.max(1, Math.round(image.naturalHeight * zoom));
      mask(canvas, map, grid);
    };
    if (image.complete && image.naturalWidth) draw();
    else image.addEventListener("load", draw);
    box.append(canvas);
  }
  return box;
};

/** A small picture without a map. */
export const thumb = (number) => {
  if (number < 0) return made("span", "thumb"); // of a layer that is not shown
  const image = made("img", "thumb");
  image.alt = "";
  image.loading = "lazy";
  image.src = pictureOf(number);
  return image;
};

const THEMES = ["system", "light", "dark"];
at("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const next = THEMES[(THEMES.indexOf(root.dataset.theme ?? "system") + 1) % THEMES.length];
  root.dataset.theme = next;
  at("theme").textContent = `Theme: ${next}`;
});
