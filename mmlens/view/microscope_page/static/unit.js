// The page of one unit.
import { at, bare, list, made, none, prob, signed } from "./base.js";
import { histogram, shares } from "./charts.js";
import { masked, thumb } from "./maps.js";
import { layerOf, nameOf, shows, site, unitOf } from "./store.js";

const COLOURS = ["--one", "--two", "--three", "--four", "--five"].map((name) => `var(${name})`);
const part = (title, hint, ...children) =>
  made("section", "part", made("h2", "", title), hint ? made("p", "note", hint) : null, ...children);
const whole = (n) => n.toLocaleString("en");
const link = (name, text, cls) => {
  const node = made("a", cls, text);
  node.href = `#${name}`;
  return node;
};

const tops = (found, grid) => {
  const shots = (found.t ?? []).map(([number, name, value, map]) => {
    const told = made("span", "told", made("span", "value", bare(value)), made("span", "name", name));
    const shot = made("li", "", masked(number, name, map, grid), told);
    shot.title = `${name}: ${bare(value)}`;
    return shot;
  });
  const bare_ = made("input");
  bare_.type = "checkbox";
  if (!shots.length) return part("Top pictures", "None: its activation is the same everywhere.");
  const box = part("Top pictures", "", made("label", "bare", bare_, " without outlines"), made("ol", "tops", ...shots));
  box.classList.add("wide");
  bare_.addEventListener("change", () => box.classList.toggle("plain", bare_.checked));
  return box;
};

const drawn = (files) => {
  if (!files) return null;
  const images = files.map((file) => {
    const image = made("img");
    image.src = file;
    image.alt = "Feature visualisation";
    return image;
  });
  return part("Feature visualisation", "A picture made to excite it.", made("div", "drawn", ...images));
};

const peaks = ({ h, l = [] }) => {
  if (!h) return null;
  const { peaks: n, strong } = site.facts, box = made("div", "plots");
  const legend = made("ul", "legend"), flat = h[0] === h[1];
  if (flat) return part("Activation over pictures", `The same, ${bare(h[0])}, in all of ${whole(n)} pictures.`);
  const draw = (chosen) => {
    list(box, [histogram(h, l[chosen]?.[3], COLOURS[chosen], !l.length), l.length ? shares(h, l, COLOURS, chosen) : null].filter(Boolean));
    [...legend.querySelectorAll("button")].forEach((node, i) => node.setAttribute("aria-pressed", String(i === chosen)));
  };
  legend.append(...l.map(([label, apart, most], i) => {
    const swatch = made("i"), node = made("button", "quiet", swatch, made("b", "", site.labels[label]), made("span", "",
      `${signed(apart)} SD; in ${most} of the ${strong} strongest, ${Math.round(100 * site.facts.with[label] / n)} % of all`));
    swatch.style.background = COLOURS[i];
    node.type = "button";
    node.addEventListener("click", () => draw(i));
    return made("li", "", node);
  }));
  draw(0);
  const below = l.length ? " Below: of these, the share with each label." : "";
  return part(l.length ? "Activation and labels" : "Activation over pictures",
    `${whole(n)} pictures by their largest activation, counted on a logarithmic scale.${below}`, box, l.length ? legend : null);
};

const says = (rows) => rows && part("Decodes to", "The words whose logits its output raises most, with their probability.",
  made("ul", "chips", ...rows.map(([word, p]) => made("li", "", word, made("span", "p", ` ${prob(p)}`)))));

const words = (rows) => {
  if (!rows) return null;
  const most = Math.max(...rows.map(([, value]) => Math.abs(value)), 1e-9);
  return part("Top words", "The words, rendered as pictures, that excite it most.", made("ol", "rendered", ...rows.map(([word, value]) => {
    const bar = made("i");
    bar.style.width = `${100 * Math.abs(value) / most}%`;
    return made("li", "", made("span", "word", word), made("span", "track", bar), made("span", "value", bare(value)));
  })));
};

const OTHER = new Set(["index", "low", "high", "concept"]);
const formats = (found) => {
  if (!found) return null;
  const rows = Object.entries(found).filter(([name, value]) => !OTHER.has(name) && !none(value));
  const most = Math.max(...rows.map(([, value]) => Math.abs(value)), 1e-9);
  const ends = none(found.low) || none(found.high) ? "" : `, interval ${bare(found.low)} to ${bare(found.high)}`;
  return part("Across formats", `${found.concept ? `“${found.concept}”: its` : "Its"} index is ${bare(found.index)}${ends}: the least of these, each the distance from distractors of the same format in standard deviations.`, made("ul", "rendered plainly", ...rows.map(([name, value]) => {
    const bar = made("i", value < 0 ? "minus" : "");
    bar.style.width = `${100 * Math.abs(value) / most}%`;
    return made("li", "", made("span", "format", name.replaceAll("_", " ")), made("span", "track", bar), made("span", "value", bare(value)));
  })));
};

/** Other units as a row of pictures with a number each. */
const others = (rows, shown, most) => made("ul", "others", ...rows.map(([layer, unit, value, top]) => {
  const name = nameOf(layer, unit), there = shows(layer, unit);
  const bar = made("i", value < 0 ? "minus" : "");
  bar.style.width = `${100 * Math.min(Math.abs(value) / most, 1)}%`;
  const inside = [thumb(top), made("span", "id", `L${layer}.${unit}`), made("span", "track", bar), made("span", "value", shown(value))];
  const node = there ? link(name, "", "other") : made("span", "other");
  node.append(...inside);
  node.title = name;
  return made("li", "", node);
}));
const largest = (rows) => Math.max(...rows.map(([, , value]) => Math.abs(value)));
const near = (title, hint, rows) => rows && part(title, hint, others(rows, bare, 1));
const wired = (title, hint, rows) => rows && part(title, hint, others(rows, signed, largest(rows)));

const beside = (name, text, there) => {
  const node = there ? link(name, text, "quiet") : made("span", "quiet off", text);
  return node;
};

/** Show a unit, or say why there is none. */
export const showUnit = async (key, unit) => {
  const { layer, units, grid, site: where } = layerOf.get(key), name = nameOf(layer, unit);
  const found = await unitOf(key, unit);
  const [low, mean, spread, high] = found.r;
  const title = made("h1", "mono", name);
  title.id = "unit-title";
  const bar = made("nav", "beside", link(key, `← ${key}`, "quiet"), beside(nameOf(layer, unit - 1), "previous", unit > 0),
    beside(nameOf(layer, unit + 1), "next", unit + 1 < units));
  const never = high > 0 ? "" : " It is never above 0.";
  const told = made("p", "note", `Unit ${unit} of ${whole(units)} in layer ${layer}, at ${where}. Over all patches of ${whole(site.facts.pictures)} pictures: mean ${bare(mean)}, standard deviation ${bare(spread)}, from ${bare(low)} to ${bare(high)}.${never}`);
  const weights = site.facts.measured ? "" : " Without the norm between: it could not be measured.";
  list(at("one"), [made("header", "", bar, title, told), made("div", "parts",
    made("div", "left", tops(found, grid), drawn(found.v), words(found.p), formats(found.f)),
    made("div", "right", peaks(found), says(found.d),
      near("Active together", "Nearest by the correlation of their peaks.", found.c),
      near("Writes alike", "Nearest by the cosine of their output weights.", found.w),
      wired("Fed by", `The strongest weights from layer ${layer - 1}.${weights}`, found.i),
      wired("Feeds", `The strongest weights to layer ${layer + 1}.${weights}`, found.o)))]);
  document.title = `${name} · mmlens`;
};
