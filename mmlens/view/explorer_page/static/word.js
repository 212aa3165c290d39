// The neurons behind a word, and the rows that neurons are shown in anywhere.
import { at, list, made, none, points, prob, signed } from "./base.js";
import { mini } from "./paint.js";
import { controls } from "./sorting.js";
import { all, now, onRender, quoted, set, showNeuron, state, texts, wordNow } from "./state.js";

/** What is known of a neuron at a positive or a negative activation; where one is known, that one. */
const endOf = (name, sign) => {
  const one = all.neurons[name] ?? { says: [], probs: [] };
  return one.minus && (sign < 0 || !one.says.length) ? { ...one.minus, minus: true } : { ...one, minus: false };
};

/** The words that a neuron says at an activation of this sign; the one that is explained stands out. */
export const chips = (name, most = 10, wanted = "", sign = 1) => {
  const { says, probs, minus } = endOf(name, sign), end = made("li", "end", "−");
  end.title = "Its activation is negative here: the words that minus its output raises.";
  return made("ul", "chips", ...(minus ? [end] : []), ...says.slice(0, most).map((word, i) => {
    const chip = made("li", word.replaceAll("·", "").toLowerCase() === wanted ? "same" : "", word);
    if (!none(probs[i])) chip.title = `${word}: ${prob(probs[i])} of what ${minus ? "minus " : ""}its output raises`;
    return chip;
  }));
};

/** A neuron's name as a link to it. */
export const linkTo = (name) => {
  const link = made("a", "id", name);
  link.href = `#${name}`;
  link.addEventListener("click", (event) => {
    event.preventDefault();
    event.stopPropagation();
    showNeuron(name);
  });
  link.addEventListener("focus", () => set({ overNeuron: name }));
  link.addEventListener("blur", () => set({ overNeuron: null }));
  return link;
};

/** A row that shows the neuron on the picture while it is pointed at, and opens it. */
export const rowOf = (name, patch, ...cells) => {
  const here = now(), row = made("tr"), values = here.activity(name);
  row.id = name;
  row.append(made("td", "", mini(here, values, here.grid, patch)), ...cells.map((cell) => made("td", "", ...[cell].flat())));
  row.addEventListener("pointerenter", () => set({ overNeuron: name }));
  row.addEventListener("pointerleave", () => set({ overNeuron: null }));
  row.addEventListener("click", () => showNeuron(name));
  return row;
};

/** Arrow keys go from neuron to neuron in a table. */
export const walk = (body) => body.addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const links = [...body.querySelectorAll("a.id")], here = links.indexOf(document.activeElement);
  if (!step || here < 0) return;
  event.preventDefault();
  links[Math.min(Math.max(here + step, 0), links.length - 1)].focus();
});
walk(at("neurons"));

/** What is left of a probability, and the change in percentage points. */
const lost = (before, after) => [
  made("span", "without", prob(after)),
  made("div", "at", none(after) || none(before) ? "" : `${points(after - before)} pt`),
];

let drawn = "";
const arranged = controls(at("arrange"), "score", () => { drawn = ""; set({}); });
onRender(() => {
  const word = wordNow(), here = now(), key = `${state.picture} ${state.level} ${word}`;
  if (drawn === key) return;
  drawn = key;
  const { text, before, together } = here.words[word], rows = here.tops[word];
  const top = Math.max(...rows.map((row) => Math.abs(row.score ?? 0))) || 1;
  at("word-title").textContent = `Neurons that ${texts ? "raise" : "speak for"} ${quoted(word)}`;
  const silenced = here.without && rows.some((row) => here.without[row.neuron]);
  at("together").textContent = none(together) ? ""
    : `${quoted(word)} has probability ${prob(before)}; with ${Math.min(rows.length, 10) === 1 ? "this neuron" : `the first ${Math.min(rows.length, 10)} neurons`} silenced ${prob(together)}.`;
  at("without-head").hidden = !silenced;
  at("says-head").hidden = texts; // units of an encoder decode to no words
  list(at("neurons"), arranged(rows, (one) => one.neuron).map((one) => {
    const bar = made("b", one.score < 0 ? "minus" : "");
    bar.style.width = `${Math.max(2, 60 * Math.abs(one.score ?? 0) / top)}px`;
    const who = [linkTo(one.neuron), made("div", "score", bar, made("span", "", signed(one.score))),
      made("div", "at", here.told(one.at))];
    const cells = [who];
    if (silenced) cells.push(lost(before, (here.without[one.neuron] ?? [])[word]));
    if (!texts) cells.push(chips(one.neuron, 10, text.toLowerCase(), one.sign ?? 1));
    return rowOf(one.neuron, one.patch, ...cells);
  }));
});
