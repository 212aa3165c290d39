// The index of a sweep: pictures and neurons to choose from, found by their words.
import { at, list, made } from "./base.js";
import { mini } from "./paint.js";
import { controls } from "./sorting.js";
import { all, many, onRender, showNeuron, showPicture, state } from "./state.js";

const entries = { pictures: [], neurons: [] };
let kind = "pictures";

/** A text in pieces, the part that was looked for marked. */
const marked = (text, wanted) => {
  const from = wanted ? text.toLowerCase().indexOf(wanted) : -1;
  if (from < 0) return [text];
  return [text.slice(0, from), made("mark", "", text.slice(from, from + wanted.length)), text.slice(from + wanted.length)];
};

const button = (...children) => {
  const node = made("button", "entry", ...children);
  node.type = "button";
  return node;
};

const fill = () => {
  entries.pictures = all.index.map((one, i) => {
    const line = made("span", "line"), name = made("span", "at");
    const node = button(mini(one, null, null, null, "mini small"), made("span", "", line, name));
    const show = (wanted) => { line.replaceChildren(...marked(one.caption, wanted)); name.replaceChildren(...marked(one.name, wanted)); };
    node.addEventListener("click", () => showPicture(i));
    return { node, show, text: `${one.name} ${one.caption}`.toLowerCase(), is: () => state.picture === i };
  });
  const order = Object.entries(all.neurons).sort(([, a], [, b]) => b.count - a.count);
  entries.neurons = order.map(([name, { says: plus, minus, count }]) => {
    const says = [...plus, ...(minus?.says ?? [])];
    const often = count ? ` × ${count}` : " fires"; // among the first of so many words, or of a patch only
    const id = made("span", "id"), words = made("span", "at mono");
    const node = button(made("span", "", made("span", "line", id, made("span", "at", often)), words));
    // the words that were looked for stand first, so that it is seen why a neuron was found
    const show = (wanted) => {
      const hit = says.filter((word) => wanted && word.toLowerCase().includes(wanted));
      const first = [...new Set([...hit, ...(plus.length || !says.length ? plus : ["−", ...says])])].slice(0, 5);
      id.replaceChildren(...marked(name, wanted));
      words.replaceChildren(...first.flatMap((word, k) => [k ? " " : "", ...marked(word, wanted)]));
    };
    node.addEventListener("click", () => showNeuron(name));
    return { node, show, name, text: `${name} ${says.join(" ")}`.toLowerCase(), is: () => state.neuron === name };
  });
};

const arranged = controls(at("arrange-all"), "how often", () => filter());
const filter = () => {
  const wanted = at("find").value.trim().toLowerCase(), every = entries[kind];
  const hits = every.filter((entry) => entry.text.includes(wanted));
  const found = kind === "neurons" ? arranged(hits, (entry) => entry.name) : hits;
  found.forEach((entry) => entry.show(wanted));
  at("arrange-all").hidden = kind !== "neurons";
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
