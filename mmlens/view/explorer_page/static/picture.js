// The picture, its overlay, and the number under pointer and arrow keys.
import { at, bare, list, made, prob, signed } from "./base.js";
import { frame, gradient, paint, place } from "./paint.js";
import { now, onRender, quoted, set, showLevel, shown, showPatch, state, texts } from "./state.js";

export const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
let painted = null;

const renderPhoto = () => {
  const here = now();
  if (painted === here) return;
  painted = here;
  at("picture").src = here.src;
  at("picture").alt = `The picture: ${here.name}`;
  at("photo").className = `photo ${here.sharp ? "sharp" : ""} ${at("bare").checked ? "bare" : ""}`;
  at("photo").style.setProperty("--ratio", here.ratio);
  at("photo").classList.toggle("list", here.drawn === "list");
  place(at("window"), here.window);
  at("levels").hidden = here.levels.length < 2;
  list(at("level"), here.levels.map(({ name }, i) => {
    const input = made("input");
    Object.assign(input, { type: "radio", name: "level", checked: i === state.level });
    input.addEventListener("change", () => showLevel(i));
    return made("label", "", input, ` ${name}`);
  }));
};

const renderMap = () => {
  const here = now(), map = shown();
  paint(at("overlay"), map.values, here.grid, map.top, map.kind);
  at("bar").style.background = gradient(map.kind);
  const peak = map.name && here.tops[state.word].find((row) => row.neuron === map.name);
  frame(at("peak"), peak ? peak.patch : null, here.grid);
  frame(at("pinned"), state.tab === "patch" ? state.patch : null, here.grid);
  frame(at("here"), state.overPatch, here.grid);
  if (map.token) {
    at("map-title").textContent = `Where the lens reads “${map.token.word}” after layer ${map.token.layer}`;
    at("low").textContent = "not among its words";
    at("high").textContent = "probability 1";
  } else if (map.name) {
    at("map-title").textContent = `Where ${map.name} is active`;
    at("low").textContent = "0 or below";
    at("high").textContent = `activation ${bare(map.top)}`;
  } else {
    at("map-title").textContent = `Attribution of ${quoted(map.word)}`;
    at("low").textContent = `−${bare(map.top)} lowers`;
    at("high").textContent = `raises +${bare(map.top)}`;
  }
  at("readout").textContent = told(here, map, peak);
};

/** The line under the picture: the whole map, or the patch pointed at. */
const told = (here, map, peak) => {
  const patch = state.overPatch;
  if (patch === null) {
    if (map.token) return `“${map.token.word}” has probability ${prob(map.token.p)} at row ${state.patch[0]}, column ${state.patch[1]} after layer ${map.token.layer}.`;
    if (map.name) {
      return peak ? `The frame marks the patch where ${map.name} does most for ${quoted(state.word)}.`
        : `Activation of ${map.name}, after its activation function.`;
    }
    return `All ${here.drawn === "list" ? "positions" : "patches"} together: ${signed(here.totals[map.word])} to the logit of ${quoted(map.word)}. Point at one for its number, click it for ${texts ? "what fires there" : "its lens"}.`;
  }
  const [row, col] = patch, value = map.values[row * here.grid[1] + col];
  const spot = here.drawn === "list" ? `Position ${row * here.grid[1] + col}: ` : `Patch row ${row}, column ${col}: `;
  if (map.token) return `${spot}“${map.token.word}” ${value ? prob(value) : "not among the first words"} after layer ${map.token.layer}.`;
  const rank = map.values.filter((other) => other > value).length + 1;
  const what = map.name ? `activation of ${map.name}` : `to the logit of ${quoted(map.word)}`;
  const size = map.name ? bare(value) : signed(value);
  return `${spot}${size} ${what}` + (Number.isNaN(value) ? "." : `, rank ${rank} of ${here.place.size}${here.levels.length > 1 ? ` of the ${here.drawn}` : ""}.`);
};

const photo = at("photo"), overlay = at("overlay");
const under = (event) => {
  const [rows, cols] = now().grid, area = overlay.getBoundingClientRect();
  const col = Math.floor(cols * (event.clientX - area.left) / area.width);
  const row = Math.floor(rows * (event.clientY - area.top) / area.height);
  return now().place.has(`${row},${col}`) ? [row, col] : null;
};
const pointed = (patch) => {
  if (String(patch) !== String(state.overPatch)) set({ overPatch: patch });
};
photo.addEventListener("pointermove", (event) => pointed(under(event)));
photo.addEventListener("pointerleave", () => pointed(null));
photo.addEventListener("blur", () => pointed(null));
photo.addEventListener("click", (event) => {
  const patch = under(event);
  if (patch) showPatch(patch);
});
photo.addEventListener("keydown", (event) => {
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    return showPatch(state.overPatch ?? state.patch ?? [0, 0]);
  }
  if (!(event.key in steps)) return;
  event.preventDefault();
  const [rows, cols] = now().grid, from = state.overPatch ?? (state.tab === "patch" ? state.patch : null);
  if (from === null) return pointed([0, 0]);
  const down = { ArrowDown: 1, ArrowUp: -1 }[event.key] ?? 0, right = { ArrowRight: 1, ArrowLeft: -1 }[event.key] ?? 0;
  pointed([Math.min(Math.max(from[0] + down, 0), rows - 1), Math.min(Math.max(from[1] + right, 0), cols - 1)]);
});
document.querySelectorAll("input[name=scale]").forEach((input) => input.addEventListener("change", () => {
  set({ all: input.value === "all" && input.checked });
}));
at("bare").addEventListener("change", (event) => photo.classList.toggle("bare", event.target.checked));
onRender(() => { renderPhoto(); renderMap(); });
