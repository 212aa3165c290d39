// One state: which picture, word, neuron and patch; what is pointed at goes before what is chosen.
import { at, highest, largest, lensOf, levelled, numbers, unpack } from "./base.js";

const read = (id) => JSON.parse(at(id).textContent);
export const all = read("data");
export const many = all.index.length > 1;
/** Whether pictures are held against texts (or classes), instead of being captioned. */
export const texts = document.documentElement.dataset.says === "texts";
export const unitOf = texts ? "text" : "word";
const opened = new Map();

/** A picture at one of its levels, unpacked when it is first looked at. */
const open = (i, level = 0) => {
  const key = `${i} ${level}`;
  if (!opened.has(key)) {
    const raw = levelled(read(`p${i}`), level), active = new Map();
    const values = raw.maps.map((map) => map && numbers(map)); // null: a word that is not explained
    opened.set(key, {
      ...raw,
      drawn: raw.levels[level].name,
      tops: raw.tops.map((rows) => rows.map((row) => ({ ...row, patch: raw.patches[row.at] }))),
      told: (n) => toldOf(raw.levels, level, n),
      maps: raw.maps.map((map) => map && unpack(map, raw)),
      totals: values.map((map) => map && map.reduce((sum, value) => sum + (value || 0), 0)),
      top: Math.max(...values.filter(Boolean).map(largest)),
      lens: lensOf(raw.lens, all.vocabulary, raw.patches.length),
      place: new Map(raw.patches.flatMap((cell, n) => (cell ? [[`${cell[0]},${cell[1]}`, n]] : []))),
      /** The map of a neuron, or null where it was not read on this picture. */
      activity: (name) => {
        if (!active.has(name)) {
          const packed = raw.active[name];
          const top = packed ? null : (all.tops[name] ?? []).find((one) => all.thumbs[one.thumb].at === i);
          active.set(name, packed ? unpack(packed, raw) : top ? unpack(top.map, levelled(all.thumbs[top.thumb], level)) : null);
        }
        return active.get(name);
      },
    });
  }
  return opened.get(key);
};
/** Where a position is, in words; in another level with that level's name. */
const toldOf = (levels, level, n) => {
  const one = levels[level].patches[n] ? levels[level] : levels.find(({ patches }) => patches[n]);
  const [row, col] = one.patches[n];
  if (one.name === "list") return `at position ${row * one.grid[1] + col}`;
  return `at row ${row}, column ${col}${one === levels[level] ? "" : ` of the ${one.name}`}`;
};

export const state = {
  picture: 0, level: 0, word: 0, neuron: null, patch: null, token: null, tab: "word", all: false,
  overWord: null, overNeuron: null, overPatch: null, overToken: null,
};
export const now = () => open(state.picture, state.level);
const renders = [];
export const onRender = (call) => renders.push(call);
/** Change the state and show it. */
export const set = (changes) => {
  Object.assign(state, changes);
  renders.forEach((call) => call());
};
export const unpointed = { overWord: null, overNeuron: null, overToken: null };
export const showPicture = (picture, changes = {}) => set({
  ...unpointed, overPatch: null, picture, level: 0, word: open(picture).target, neuron: null, patch: null, token: null,
  tab: "word", ...changes,
});
/** Draw the tiles, the thumbnail, or what else there is. */
export const showLevel = (level) => set({
  ...unpointed, overPatch: null, patch: null, token: null, level, tab: state.tab === "patch" ? "word" : state.tab,
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
    here.patches.forEach((cell, n) => {
      if (!cell) return;
      const [row, col] = cell;
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
