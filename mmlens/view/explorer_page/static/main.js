// Tabs, keys, addresses and the theme: what holds the parts together.
import { at } from "./base.js";
import { steps } from "./picture.js";
import { all, many, now, onRender, quoted, set, showNeuron, showPicture, state, texts, unpointed } from "./state.js";

const TABS = ["word", "neuron", "patch"];
for (const name of TABS) at(`tab-${name}`).addEventListener("click", () => set({ ...unpointed, tab: name }));
at("tabs").addEventListener("keydown", (event) => {
  if (!(event.key in steps)) return;
  event.preventDefault();
  const next = TABS[(TABS.indexOf(state.tab) + steps[event.key] + TABS.length) % TABS.length];
  set({ ...unpointed, tab: next });
  at(`tab-${next}`).focus();
});
onRender(() => {
  const tab = state.overWord === null ? state.tab : "word"; // a word pointed at shows its neurons
  at("tab-word").textContent = `${texts ? "Text" : "Word"} ${quoted(state.word)}`;
  at("tab-neuron").textContent = state.neuron === null ? "Neuron" : `Neuron ${state.neuron}`;
  at("tab-patch").textContent = state.patch === null ? "Patch" : `Patch ${state.patch.join(", ")}`;
  for (const name of TABS) {
    at(`tab-${name}`).setAttribute("aria-selected", String(name === tab));
    at(`tab-${name}`).tabIndex = name === tab ? 0 : -1;
    at(`panel-${name}`).hidden = name !== tab;
  }
  at("shown").textContent = now().name;
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape") set({ ...unpointed, overPatch: null, token: null, tab: "word" });
});

// Addresses: page.html#L3.17 opens on that neuron, page.html#picture=NAME on that picture.
let address = "";
const follow = () => {
  address = decodeURIComponent(location.hash.slice(1));
  const picture = all.index.findIndex((one) => address === `picture=${one.name}`);
  if (picture >= 0) return showPicture(picture);
  return showNeuron(address);
};
addEventListener("hashchange", () => {
  if (decodeURIComponent(location.hash.slice(1)) !== address) follow();
});
onRender(() => {
  const picture = many ? `picture=${all.index[state.picture].name}` : "";
  const wanted = state.tab === "neuron" && state.neuron !== null ? state.neuron : picture;
  if (wanted === address) return;
  const begins = address === "" && !/(^|\.)L\d+\./.test(wanted); // opening a page is no step to go back from
  address = wanted;
  try {
    const hash = `#${encodeURIComponent(wanted).replace("%3D", "=")}`;
    if (begins || wanted === "") history.replaceState(null, "", hash);
    else location.hash = hash;
  } catch {
    // a frame without an address of its own
  }
});

const THEMES = ["system", "light", "dark"];
at("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const next = THEMES[(THEMES.indexOf(root.dataset.theme ?? "system") + 1) % THEMES.length];
  root.dataset.theme = next;
  at("theme").textContent = `Theme: ${next}`;
});

address = decodeURIComponent(location.hash.slice(1));
state.word = now().target;
if (!follow()) set({});
document.documentElement.dataset.ready = "yes";
