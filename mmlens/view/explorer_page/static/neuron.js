// One neuron: what it decodes to, the caption without it, the words it is attributed, its top pictures.
import { at, bare, levelled, list, made, none, points, prob, signed, unpack } from "./base.js";
import { mini } from "./paint.js";
import { all, many, now, onRender, showPicture, showWord, state, texts, unitOf } from "./state.js";
import { chips } from "./word.js";

const part = (title, hint, ...children) => made("section", "part", made("h3", "", title), hint ? made("p", "note", hint) : null, ...children);

/** Every word of the caption, with and without the neuron. */
const ablation = (here, name) => {
  const without = here.without[name];
  if (!without && texts) return part("Without it", "The probabilities without this neuron were not computed on this picture: mmlens look --deep does it for all of them, where there are several texts.");
  if (!without) return part("Without it", "The caption without this neuron was not computed on this picture: mmlens look --deep does it for all of them.");
  const changes = here.words.map((word, i) => (none(word.before) ? NaN : without[i] - word.before));
  const widest = Math.max(...changes.map((change) => Math.abs(change) || 0), 0.001);
  const head = made("tr", "", ...[unitOf, "as it is", "without", "points"].map((text) => {
    const cell = made("th", "", text);
    cell.scope = "col";
    return cell;
  }));
  const body = made("tbody", "", ...here.words.map((word, i) => {
    const bar = made("b", changes[i] < 0 ? "minus" : "");
    bar.style.width = `${50 * Math.abs(changes[i] || 0) / widest}px`;
    const text = made("th", "text", word.text);
    text.scope = "row";
    return made("tr", "", text, made("td", "number", prob(word.before)), made("td", "number", prob(without[i])),
      made("td", "change", made("span", "number", points(changes[i])), bar));
  }));
  const fixed = texts ? "." : ", the words before it unchanged.";
  return part("Without it", `Probability of every ${unitOf} with the neuron at 0 everywhere${fixed}`,
    made("table", "ablation", made("thead", "", head), body));
};

/** What it says: at a positive activation, at a negative one, or both, as far as it is known. */
const says = ({ says: plus = [], minus }, name) => texts ? [] : [
  plus.length || !minus ? part("Says", "The words that its output raises most, whatever the picture.", chips(name)) : null,
  minus ? part("Says where its activation is negative", "The words that minus its output raises most.", chips(name, 10, "", -1)) : null,
];

/** The words of this caption that it is among the first neurons of. */
const speaks = (here, name) => {
  const words = here.tops.flatMap((rows, word) => {
    const rank = rows.findIndex((row) => row.neuron === name);
    return rank < 0 ? [] : [{ word, rank, score: rows[rank].score }];
  });
  if (!words.length) return null;
  return part(texts ? "Raises" : "Speaks for", "", made("p", "links", ...words.map(({ word, rank, score }) => {
    const link = made("button", "link", here.words[word].text);
    link.type = "button";
    link.addEventListener("click", () => showWord(word));
    return made("span", "", link, ` ${signed(score)}, number ${rank + 1}`);
  })));
};

/** The pictures that excite it most, under its map. */
const tops = (name) => {
  const found = all.tops[name];
  if (!found) return null;
  return part("Top pictures", "The pictures of the sweep that excite it most; the outline is where it is above half of its largest activation there.", made("ul", "tops", ...found.map((top) => {
    const thumb = levelled(all.thumbs[top.thumb], 0), inside = many && thumb.at >= 0;
    const card = made(inside ? "button" : "span", "card", mini(thumb, unpack(top.map, thumb), thumb.grid, null, "mini wide as-is", true),
      made("span", "value", bare(top.value)), made("span", "name", thumb.name));
    if (inside) {
      card.type = "button";
      card.title = `Open ${thumb.name}, activation ${bare(top.value)}`;
      card.addEventListener("click", () => showPicture(thumb.at, { neuron: name, tab: "neuron" }));
    }
    return made("li", "", card);
  })));
};

let drawn = "";
onRender(() => {
  const name = state.neuron, here = now(), key = `${state.picture} ${state.level} ${name}`;
  at("neuron-none").hidden = name !== null;
  at("neuron-one").hidden = name === null;
  if (name === null || drawn === key) return;
  drawn = key;
  const [, layer, unit] = name.match(/L(\d+)\.(\d+)$/);
  at("neuron-title").textContent = name;
  const count = all.neurons[name]?.count ?? 0;
  at("neuron-told").textContent = `Layer ${layer}, unit ${unit}` + (count ? `; among the first neurons of ${count} ${unitOf}${count > 1 ? "s" : ""}${many ? " in all pictures" : ""}.` : ".");
  list(at("neuron-body"), [
    ...says(all.neurons[name] ?? {}, name),
    speaks(here, name), ablation(here, name), tops(name),
  ].filter(Boolean));
});
