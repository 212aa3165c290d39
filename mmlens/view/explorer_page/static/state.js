// One state: which picture, word, neuron and patch; what is pointed at goes before what is chosen.
import { at, highest, largest, lensOf, unpack } from "./base.js";

const read = (id) => JSON.parse(at(id).textContent);
export const all = read("data");
export const many = all.index.length > 1;
/** Whether pictures are held against texts (or classes), instead of being captioned. */
export const texts = document.documentElement.dataset.says === "texts";
export const unitOf = texts ? "text" : "word";
const opened = new Map();

/** A picture, unpacked when it is first looked at. */
const open = (i) => {
  if (!opened.has(i)) {
    const raw = read(`p${i}`), active = new Map();
    const maps = raw.maps.map((map) => map && unpack(map, raw)); // null: a word that is not explained
    opened.set(i, {
      ...raw,
      maps,
      totals: maps.map((map) => map && map.reduce((sum, value) => sum + (value || 0), 0)),
      top: Math.max(...maps.filter(Boolean).map(largest)),
      lens: lensOf(raw.lens, all.vocabulary, raw.patches.length),
      place: new Map(raw.patches.map(([row, col], n) => [`${row},${col}`, n])),
      /** The map of a neuron, or null where it was not read on this picture. */
      activity: (name) => {
        if (!active.has(name)) {
          const packed = raw.active[name];
          const top = packed ? null : (all.tops[name] ?? []).find((one) => all.thumbs[one.thumb].at === i);
          active.set(name, packed ? unpack(packed, raw) : top ? unpack(top.map, all.thumbs[top.thumb]) : null);
        }
        return active.get(name);
      },
    });
  }
  return opened.get(i);
};

export const state = {
  picture: 0, word: 0, neuron: null, patch: null, token: null, tab: "word", all: false,
  overWord: null, overNeuron: null, overPatch: null, overToken: null,
};
export const now = () => open(state.picture);
const renders = [];
export const onRender = (call) => renders.push(call);
/** Change the state and show it. */
export const set = (changes) => {
  Object.assign(state, changes);
  renders.forEach((call) => call());
};
export const unpointed = { overWord: null, overNeuron: null, overToken: null };
export const showPicture = (picture, changes = {}) => set({
  ...unpointed, overPatch: null, picture, word: open(picture).target, neuron: null, patch: null, token: null,
  tab: "word", ...changes,
});
export const showWord = (word) => set({ ...unpointed, word, token: null, tab: "word" });
export const showPatch = (patch) => set({ ...unpointed, patch, token: null, tab: "patch" });

/** Select a neuron: on this picture if it was read here, else on the one that excites it most. */
export const showNeuron = (name) => {
  if (!(name in all.neurons)) return false;
  const here = state.picture;
  const known = now().activity(name) !== null;
  const at_ = known ? here : pictureOf(name);
  if (at_ === null) return false;
  const there = open(at_);
  const has = (word) => there.tops[word].some((row) => row.neuron === name);
  const first = there.tops.findIndex((_, word) => has(word));
  const word = at_ === here && has(state.word) ? state.word : first < 0 ? (at_ === here ? state.word : there.target) : first;
  if (at_ === here) set({ ...unpointed, word, neuron: name, token: null, tab: "neuron" });
  else showPicture(at_, { word, neuron: name, tab: "neuron" });
  return true;
};
const pictureOf = (name) => {
  const top = (all.tops[name] ?? []).find((one) => all.thumbs[one.thumb].at >= 0);
  if (top) return all.thumbs[top.thumb].at;
  for (let i = 0; i < Math.max(all.index.length, 1); i++) if (name in open(i).active) return i;
  return null;
};

/** The word whose neurons are shown: the one pointed at, or the chosen one. */
export const wordNow = () => state.overWord ?? state.word;
/** The word's text in quotation marks. */
export const quoted = (word) => `“${now().words[word].text}”`;

/** The map that is on the picture now. */
export const shown = () => {
  const here = now(), token = state.overToken ?? (state.tab === "patch" ? state.token : null);
  if (token && state.overNeuron === null && state.overWord === null) {
    const values = new Float32Array(here.grid[0] * here.grid[1]).fill(0);
    here.patches.forEach(([row, col], n) => {
      const found = here.lens.top(token.depth, n).find(([word]) => word === token.word);
      values[row * here.grid[1] + col] = found ? found[1] : 0;
    });
    return { token, values, kind: "heat", top: 1 };
  }
  const chosen = state.tab === "neuron" && state.overWord === null ? state.neuron : null;
  const name = state.overNeuron ?? chosen;
  if (name !== null) {
    const values = here.activity(name);
    if (values) return { name, values, kind: "heat", top: highest(values) };
  }
  const word = wordNow(), values = here.maps[word];
  return { word, values, kind: "signed", top: state.all ? here.top : largest(values) };
};
