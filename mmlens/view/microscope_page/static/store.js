// Units from the shards beside this page: a script each, run once, asked for when it is needed.
import { at } from "./base.js";

export const site = JSON.parse(at("data").textContent);
export const layerOf = new Map(site.layers.map((layer) => [layer.key, layer]));
const keyOf = new Map(site.layers.map((layer) => [layer.layer, layer.key]));
const prefix = site.facts.tower === "lm" ? "" : `${site.facts.tower}.`;

/** The name of a unit, also of a layer that is not shown. */
export const nameOf = (layer, unit) => `${prefix}L${layer}.${unit}`;
export const shows = (layer, unit) => keyOf.has(layer) && unit < layerOf.get(keyOf.get(layer)).units;

const asked = new Map(), waiting = new Map();
globalThis.microscope = {
  take: (key, shard) => {
    const { done, failed } = waiting.get(key);
    if (shard.of === site.of) done(shard);
    else failed(new Error(`The file of ${key} belongs to another build of this site: make it again.`));
  },
};

const load = (key, part, number) => {
  const name = `${key}/${part}/${number}`;
  if (!asked.has(name)) {
    asked.set(name, new Promise((done, failed) => {
      waiting.set(name, { done, failed });
      const script = document.createElement("script");
      script.src = `units/${key}/${part}-${String(number).padStart(4, "0")}.js`;
      script.addEventListener("error", () => failed(new Error(`${script.getAttribute("src")} is missing beside this page.`)));
      script.addEventListener("load", () => script.remove());
      document.head.append(script);
    }));
  }
  return asked.get(name);
};

/** What is known of one unit. */
export const unitOf = async (key, unit) => {
  const { each } = layerOf.get(key), shard = await load(key, "units", Math.floor(unit / each));
  return shard.rows[unit - shard.start];
};

/** What the list shows of the units of a layer. */
export const rowsOf = async ({ key, listed, units }) => {
  const parts = Array.from({ length: Math.ceil(units / listed) }, (_, i) => load(key, "list", i));
  return (await Promise.all(parts)).flatMap((shard) => shard.rows);
};

export const pictureOf = (number) =>
  `pictures/${String(Math.floor(number / 1000)).padStart(3, "0")}/${String(number).padStart(6, "0")}.jpg`;
