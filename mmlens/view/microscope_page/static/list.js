// The list of all units: found by name, label or word, and sorted.
import { at, bare, list, made } from "./base.js";
import { thumb } from "./maps.js";
import { layerOf, nameOf, rowsOf, site } from "./store.js";

const PAGE = 48;
const MAX = 0, STANDS_OUT = 1, PICTURES = 2, LABEL = 3, WORDS = 4, FORMATS = 5;
const ORDERS = [
  ["unit", "number", null],
  ["sharp", "standing out (SD)", (row) => row[STANDS_OUT]],
  ["label", "label set apart (SD)", (row) => (row[LABEL] ? row[LABEL][1] : -Infinity)],
  ["formats", "cross-format index", (row) => row[FORMATS] ?? -Infinity],
  ["max", "largest activation", (row) => row[MAX]],
];
let rows = [], shown = PAGE, wantedLayer = "", told = "";

const labelOf = (row) => (row[LABEL] ? site.labels[row[LABEL][0]] : "");
const card = ({ layer, unit, row }, by) => {
  const name = nameOf(layer, unit), link = made("a", "card");
  link.href = `#${name}`;
  const four = made("span", "four", ...row[PICTURES].map((number) => thumb(number)));
  const value = by && Number.isFinite(by(row)) ? made("span", "at", bare(by(row))) : null;
  const words = row[WORDS] ? row[WORDS].slice(0, 3).join(" ") : "";
  link.append(four, made("span", "line", made("span", "id", name), value),
    made("span", "about", row[MAX] > 0 ? labelOf(row) || words : "never above 0"));
  return made("li", "", link);
};

const fill = () => {
  const wanted = at("find").value.trim().toLowerCase(), order = ORDERS.find(([key]) => key === at("sort").value) ?? ORDERS[0];
  const found = wanted ? rows.filter((one) => one.text.includes(wanted)) : [...rows];
  const by = order[2];
  if (by) found.sort((a, b) => by(b.row) - by(a.row));
  list(at("cards"), found.slice(0, shown).map((one) => card(one, by)));
  const many = `${found.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} units`;
  at("found").textContent = wanted ? `${many} match “${at("find").value.trim()}”` : many;
  at("more-line").hidden = found.length <= shown;
};

/** The list, of one layer or of all. */
export const showList = async (key) => {
  at("layer").value = key;
  if (told === `${key} shown`) return;
  wantedLayer = key;
  const layers = key ? [layerOf.get(key)] : site.layers;
  at("found").textContent = "reading the list …";
  const parts = await Promise.all(layers.map(rowsOf));
  if (wantedLayer !== key) return; // another layer was asked for meanwhile
  rows = layers.flatMap(({ layer }, i) => parts[i].map((row, unit) => {
    const text = `${nameOf(layer, unit)} ${labelOf(row)} ${(row[WORDS] || []).join(" ")}`.toLowerCase();
    return { layer, unit, row, text };
  }));
  told = `${key} shown`;
  shown = PAGE;
  const known = (field) => rows.some(({ row }) => row[field] !== null && row[field] !== 0);
  const before = at("sort").value || "unit";
  list(at("sort"), ORDERS.filter(([name]) => (name !== "formats" || known(FORMATS)) && (name !== "label" || known(LABEL)))
    .map(([name, text]) => new Option(text, name)));
  at("sort").value = [...at("sort").options].some((one) => one.value === before) ? before : "unit";
  fill();
};

const all = new Option("all", "");
list(at("layer"), [...(site.layers.length > 1 ? [all] : []), ...site.layers.map(({ key }) => new Option(key, key))]);
at("layer").addEventListener("change", () => { location.hash = at("layer").value; });
for (const [id, event] of [["find", "input"], ["sort", "change"]]) {
  at(id).addEventListener(event, () => {
    shown = PAGE;
    fill();
  });
}
at("controls").addEventListener("submit", (event) => event.preventDefault());
at("more").addEventListener("click", () => {
  shown += 2 * PAGE;
  fill();
});
