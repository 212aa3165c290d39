// Sorting and filtering of neurons: by what they do, by layer, by clear words, by what was given.
import { made, none } from "./base.js";
import { all, texts } from "./state.js";

const entries = Object.entries(all.neurons);
const traits = [...new Set(entries.flatMap(([, one]) => Object.keys(one.traits ?? {})))];
const address = (name) => name.match(/L(\d+)\.(\d+)$/).slice(1).map(Number);
const layers = [...new Set(entries.map(([name]) => address(name)[0]))].sort((a, b) => a - b);
const isClear = (name) => Boolean(all.neurons[name]?.clear || all.neurons[name]?.minus?.clear);
const some = entries.some(([name]) => isClear(name)) && !texts;

const picker = (label, options, changed) => {
  const select = made("select");
  for (const [value, text] of options) {
    const option = made("option", "", text);
    option.value = value;
    select.append(option);
  }
  select.addEventListener("change", () => changed(select.value));
  return made("label", "", `${label} `, select);
};

/** Controls in a place; the function that is returned arranges things that have a neuron's name. */
export const controls = (place, first, changed) => {
  const chosen = { sort: "", layer: "", clear: false };
  const pick = (key) => (value) => { chosen[key] = value; changed(); };
  place.append(
    picker("sort by", [["", first], ["layer", "layer"], ...traits.map((one) => [`trait ${one}`, one])], pick("sort")),
    picker("layer", [["", "all"], ...layers.map((one) => [String(one), String(one)])], pick("layer")),
  );
  if (some) {
    const box = made("input");
    box.type = "checkbox";
    box.addEventListener("change", () => pick("clear")(box.checked));
    place.append(made("label", "", box, " clear words only"));
  }
  const trait = (name) => all.neurons[name]?.traits?.[chosen.sort.slice(6)];
  return (things, nameOf) => {
    const kept = things.filter((one) => (chosen.layer === "" || address(nameOf(one))[0] === Number(chosen.layer))
      && (!chosen.clear || isClear(nameOf(one))));
    if (chosen.sort === "layer") {
      kept.sort((a, b) => {
        const [one, two] = [address(nameOf(a)), address(nameOf(b))];
        return one[0] - two[0] || one[1] - two[1];
      });
    } else if (chosen.sort) {
      const value = (one) => (none(trait(nameOf(one))) ? -Infinity : trait(nameOf(one)));
      kept.sort((a, b) => value(b) - value(a) || 0);
    }
    return kept;
  };
};
