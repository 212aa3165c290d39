// One patch: the words of the logit lens through the layers, and the neurons that fire there.
import { at, bare, list, made, prob } from "./base.js";
import { now, onRender, set, state, texts } from "./state.js";
import { chips, linkTo, rowOf, walk } from "./word.js";

const lensTable = (here, place) => here.lens.layers.map((layer, depth) => {
  const head = made("th", "", String(layer));
  head.scope = "row";
  return made("tr", "", head, ...here.lens.top(depth, place).map(([word, p]) => {
    const cell = made("button", "lens", made("span", "token", word), made("span", "p", prob(p)));
    const token = { word, layer, depth, p };
    cell.type = "button";
    cell.style.setProperty("--p", `${Math.round(60 * Math.sqrt(p))}%`);
    cell.title = `${word}, probability ${prob(p)} after layer ${layer}: show where else`;
    cell.addEventListener("pointerenter", () => set({ overToken: token }));
    cell.addEventListener("pointerleave", () => set({ overToken: null }));
    cell.addEventListener("focus", () => set({ overToken: token }));
    cell.addEventListener("blur", () => set({ overToken: null }));
    cell.addEventListener("click", () => set({ token: same(state.token, token) ? null : token }));
    cell.dataset.token = `${depth} ${word}`;
    return made("td", "", cell);
  }));
});
const same = (one, other) => one !== null && one.depth === other.depth && one.word === other.word;
walk(at("fires"));

let drawn = "";
onRender(() => {
  const patch = state.patch, here = now();
  at("patch-none").hidden = patch !== null;
  at("patch-one").hidden = patch === null;
  if (patch === null) return;
  const key = `${state.picture} ${state.level} ${patch}`;
  if (drawn !== key) {
    drawn = key;
    const place = here.place.get(String(patch)), names = here.fires[place].map((i) => here.firing[i]);
    at("patch-title").textContent = here.drawn === "list" ? `Position ${place}` : `Patch row ${patch[0]}, column ${patch[1]}`;
    at("lens-part").hidden = !here.lens;
    at("fires-part").hidden = names.length === 0;
    at("patch-less").hidden = Boolean(here.lens) || names.length > 0;
    list(at("lens"), here.lens ? lensTable(here, place) : []);
    list(at("fires"), names.map((name) => {
      const value = here.activity(name)[patch[0] * here.grid[1] + patch[1]];
      const said = texts ? [] : [chips(name, 6, "", value)];
      return rowOf(name, patch, [linkTo(name), made("div", "at", `activation ${bare(value)}`)], ...said);
    }));
  }
  for (const cell of at("lens").querySelectorAll("button")) {
    cell.setAttribute("aria-pressed", String(state.token !== null && cell.dataset.token === `${state.token.depth} ${state.token.word}`));
  }
});
