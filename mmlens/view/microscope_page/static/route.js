// Addresses: nothing, a layer (#vision.L3), or a unit (#vision.L3.123).
import { at, made } from "./base.js";
import { showList } from "./list.js";
import { layerOf, nameOf } from "./store.js";
import { showUnit } from "./unit.js";

const title = document.title;
const read = () => {
  const text = decodeURIComponent(location.hash.slice(1));
  if (text === "" || layerOf.has(text)) return { key: text, unit: null };
  const [, key, unit] = /^(.*)\.(\d+)$/.exec(text) ?? [];
  const layer = layerOf.get(key);
  return layer && Number(unit) < layer.units ? { key, unit: Number(unit) } : { key: null, text };
};

const show = async () => {
  const { key, unit, text } = read(), root = document.documentElement;
  root.dataset.ready = "no";
  at("all").hidden = unit !== null;
  at("one").hidden = unit === null;
  try {
    if (key === null) throw new Error(`There is no unit “${text}” on this site.`);
    if (unit === null) {
      document.title = title;
      await showList(key);
    } else {
      await showUnit(key, unit);
      scrollTo(0, 0);
    }
  } catch (error) {
    at("all").hidden = true;
    at("one").hidden = false;
    const back = made("a", "quiet", "← all units");
    back.href = "#";
    at("one").replaceChildren(made("p", "note", error.message), back);
  }
  root.dataset.ready = "yes";
};

addEventListener("hashchange", show);
addEventListener("keydown", (event) => {
  const { key, unit } = read(), free = !event.target.matches?.("input, select");
  if (!free || unit === null || key === null || event.altKey || event.ctrlKey || event.metaKey) return;
  const { layer, units } = layerOf.get(key), step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (event.key === "Escape") location.hash = key;
  else if (step && unit + step >= 0 && unit + step < units) location.hash = nameOf(layer, unit + step);
});
show();
