// The index of a sweep: pictures and neurons to choose from, found by their words.
import { at, list, made } from "./base.js";
import { mini } from "./paint.js";
import { all, many, onRender, showNeuron, showPicture, state } from "./state.js";

const entries = { pictures: [], neurons: [] };
let kind = "pictures";

const button = (...children) => {
  const node = made("button", "entry", ...children);
  node.type = "button";
  return node;
};

const fill = () => {
  entries.pictures = all.index.map((one, i) => {
    const node = button(mini(one, null, null, null, "mini small"),
      made("span", "", made("span", "line", one.caption), made("span", "at", one.name)));
    node.addEventListener("click", () => showPicture(i));
    return { node, text: `${one.name} ${one.caption}`.toLowerCase(), is: () => state.picture === i };
  });
  const order = Object.entries(all.neurons).sort(([, a], [, b]) => b.count - a.count);
  entries.neurons = order.map(([name, { says: plus, minus, count }]) => {
    const says = [...plus, ...(minus?.says ?? [])];
    const often = count ? ` × ${count}` : " fires"; // among the first of so many words, or of a patch only
    const node = button(
      made("span", "", made("span", "line", made("span", "id", name), made("span", "at", often)),
        made("span", "at mono", (plus.length || !says.length ? plus : ["−", ...says]).slice(0, 5).join(" "))));
    node.addEventListener("click", () => showNeuron(name));
    return { node, text: `${name} ${says.join(" ")}`.toLowerCase(), is: () => state.neuron === name };
  });
};

const filter = () => {
  const wanted = at("find").value.trim().toLowerCase(), every = entries[kind];
  const found = every.filter((entry) => entry.text.includes(wanted));
  list(at("entries"), found.map((entry) => made("li", "", entry.node)));
  at("found").textContent = `${found.length} of ${every.length} ${kind}`;
  for (const name of Object.keys(entries)) at(`show-${name}`).setAttribute("aria-pressed", String(name === kind));
};

if (many) {
  fill();
  for (const name of Object.keys(entries)) at(`show-${name}`).addEventListener("click", () => { kind = name; filter(); });
  at("find").addEventListener("input", filter);
  at("entries").addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const nodes = [...at("entries").querySelectorAll("button")], here = nodes.indexOf(document.activeElement);
    if (!step || here < 0) return;
    event.preventDefault();
    nodes[Math.min(Math.max(here + step, 0), nodes.length - 1)].focus();
  });
  filter();
  onRender(() => {
    for (const entry of entries[kind]) {
      if (entry.is()) entry.node.setAttribute("aria-current", "true");
      else entry.node.removeAttribute("aria-current");
    }
  });
}
