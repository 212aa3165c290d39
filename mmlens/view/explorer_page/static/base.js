"use strict";
// Nodes and numbers. Whatever comes from a model becomes a text node, never HTML.

export const at = (id) => document.getElementById(id);

/** A node with a class and children; a child that is a string becomes text. */
export const made = (tag, cls = "", ...children) => {
  const node = document.createElement(tag);
  if (cls) node.className = cls;
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
};

export const list = (parent, children) => parent.replaceChildren(...children);

const digits = (value) => String(Number(value.toPrecision(3))).replace("-", "−").replace("e−", "e−");
export const none = (value) => value === null || value === undefined || Number.isNaN(value);
/** A number with its sign, and one without. */
export const signed = (value) => (none(value) ? "no value" : (value > 0 ? "+" : "") + digits(value));
export const bare = (value) => (none(value) ? "no value" : digits(value));
/** A probability: three decimals, and what is too small for them with a power of ten. */
export const prob = (value) => {
  if (none(value)) return "–";
  if (value > 0 && value < 0.0005) return value.toExponential(0).replace("-", "−");
  return value > 0.9995 && value < 1 ? "> 0.999" : value.toFixed(3);
};
/** A change of a probability, in percentage points. */
export const points = (value) => {
  if (none(value)) return "–";
  const shown = (100 * value).toFixed(Math.abs(value) < 0.0995 ? 2 : 1).replace("-", "−");
  return Number(shown.replace("−", "-")) === 0 ? "0" : (value > 0 ? "+" : "") + shown;
};

const bytes = (packed) => Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
const MISSING = -32768;

/** A map: a number per position; NaN where there is no value. */
export const numbers = ({ scale, data }) => {
  const view = new DataView(bytes(data).buffer);
  return Float32Array.from({ length: view.byteLength / 2 }, (_, i) => {
    const raw = view.getInt16(2 * i, true);
    return raw === MISSING ? NaN : raw * scale;
  });
};
/** The same in the cells [row * cols + col] of what is drawn; NaN where there is no position. */
export const unpack = (packed, { grid: [rows, cols], patches }) => {
  const values = numbers(packed), flat = new Float32Array(rows * cols).fill(NaN);
  patches.forEach((cell, i) => { if (cell) flat[cell[0] * cols + cell[1]] = values[i]; });
  return flat;
};
/** A picture as one of its levels: tiles, thumbnail, or the one grid that it has. */
export const levelled = (raw, level) => ({ ...raw, ...raw.levels[Math.min(level, raw.levels.length - 1)], name: raw.name });

/** The lens: `top(layer, place)` gives [word, probability] of every rank. */
export const lensOf = (packed, vocabulary, places) => {
  if (!packed) return null;
  const words = new DataView(bytes(packed.words).buffer), probs = new DataView(bytes(packed.probs).buffer);
  const word = (i) => vocabulary[packed.wide ? words.getUint32(4 * i, true) : words.getUint16(2 * i, true)];
  const top = (depth, place) => [...Array(packed.k).keys()].map((rank) => {
    const i = (depth * places + place) * packed.k + rank;
    return [word(i), probs.getUint16(2 * i, true) / 65535];
  });
  return { layers: packed.layers, k: packed.k, top };
};

export const largest = (values) => values.reduce((m, v) => (Math.abs(v) > m ? Math.abs(v) : m), 0) || 1;
export const highest = (values) => Math.max(values.reduce((m, v) => (v > m ? v : m), 0), 1e-9);
