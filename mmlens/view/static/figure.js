// A saved plotly figure: it follows the theme of the system, fits the window, and saves itself.
const gd = document.getElementById("{plot_id}"), room = gd.closest(".mm-room"), part = room.parentElement;
const read = (kind) => JSON.parse(part.querySelector(`script.${kind}`).textContent);
const { marks, scales, least, names, turn, name } = read("mm-told"), given = { data: gd.data, layout: gd.layout };
const dark = matchMedia("(prefers-color-scheme: dark)");
const hex = (parts) => `#${parts.map((part) => Number(part).toString(16).padStart(2, "0")).join("")}`;
const swap = (text, pairs) => {
  const faint = text.match(/^rgba\((\d+), ?(\d+), ?(\d+), ?([\d.]+)\)$/);
  if (!faint) return pairs[text] ?? text;
  const found = pairs[hex(faint.slice(1, 4))];
  if (!found) return text;
  const parts = found.match(/[0-9a-f]{2}/g).map((part) => parseInt(part, 16));
  return `rgba(${parts},${faint[4]})`;
};
const walk = (one, pairs) => {
  if (typeof one === "string") return swap(one, pairs);
  if (Array.isArray(one)) return one.map((part) => walk(part, pairs));
  if (one === null || typeof one !== "object" || ArrayBuffer.isView(one)) return one;
  return Object.fromEntries(Object.entries(one).map(([key, part]) =>
    [key, walk(part, key === "colorscale" || key === "diverging" || key === "sequential" ? scales : pairs)]));
};
// Lines of at most so many letters, as the figure was made for its own width.
const lines = (text, most) => {
  const bold = text.startsWith("<b>"), words = text.replace(/^<b>|<\/b>$/g, "").replaceAll("<br>", " ").split(" ");
  const made = [""];
  for (const word of words) {
    const last = made[made.length - 1], plain = `${last} ${word}`.replace(/&\w+;/g, "_");
    if (last && plain.length > most) made.push(word);
    else made[made.length - 1] += (last ? " " : "") + word;
  }
  return [bold ? `<b>${made.join("<br>")}</b>` : made.join("<br>"), made.length];
};
// As few lines as these, of about the same length: no word stands alone at the end.
const balanced = (text, most) => {
  let made = lines(text, most);
  for (let fewer = Math.floor(most); fewer > 0 && lines(text, fewer)[1] === made[1]; fewer--) made = lines(text, fewer);
  return made;
};
// Labels below a narrow figure are turned; of whole numbers as many are shown as have room.
const labels = (axis, room) => {
  const letters = Math.max(0, ...(axis?.ticktext ?? []).map((one) => one.length)), many = axis?.ticktext?.length ?? 0;
  if (!many || room >= many * (axis.tickangle === -90 ? 13 : letters * 7 + 8)) return;
  axis.tickangle = -90;
  const every = axis.ticktext.every((one) => /^\d+$/.test(one)) ? Math.ceil((many * 13) / room) : 1;
  for (const key of ["ticktext", "tickvals"]) axis[key] = axis[key].filter((_, at) => at % every === 0);
};
// Names beside axes and colour bars, in lines no longer than these.
const upright = (data, layout, tall) => {
  const fit = (title, share) => { if (title?.text) [title.text] = balanced(title.text, Math.max(12, tall * share / 7.2)); };
  for (const [key, axis] of Object.entries(layout)) {
    const [a, b] = axis?.domain ?? [0, 1];
    if (key.startsWith("yaxis")) fit(axis.title, b - a);
  }
  for (const trace of data) for (const bar of [trace.colorbar, trace.marker?.colorbar]) fit(bar?.title, (bar?.len ?? 1) / (bar?.lenmode === "pixels" ? tall : 1));
};
// Rows of panels with a line of names above each: the names stay as tall as they are.
const rows = (layout, before, after) => {
  const { rows: many, tall } = names, each = before / many - tall, step = after / many;
  for (const [key, axis] of Object.entries(layout)) {
    if (!key.startsWith("yaxis") || !axis.domain) continue;
    const top = 1 - Math.round((1 - axis.domain[1]) * many) * step / after;
    axis.domain = [Math.max(0, top - Math.min(step - tall, each) / after), top];
  }
};
const own = (trace) => {
  const { colorbar, marker } = trace, bars = colorbar ? { colorbar: structuredClone(colorbar) } : {};
  return { ...trace, ...bars, ...(marker?.colorbar ? { marker: { ...marker, colorbar: structuredClone(marker.colorbar) } } : {}) };
};
// Names above panels, ended where these end.
const shortened = (layout, inner) => (layout.annotations ?? []).map((name) => {
  const [, at] = name.xref?.match(/^x(\d*) domain$/) ?? [], [a, b] = layout[`xaxis${at}`]?.domain ?? [0, 0];
  const letters = name.text.match(/&\w+;|./gsu) ?? [], most = Math.max(3, Math.floor((inner * (b - a)) / 7.3));
  if (b <= a || name.xanchor === "right" || letters.length <= most) return name;
  return { ...name, text: `${letters.slice(0, most - 1).join("").trimEnd()}…` };
});
// A bar beside small panels is as long as its numbers need.
const BAR = 120;
const longer = (data, inner) => {
  const bars = data.map((trace) => trace.marker?.colorbar).filter((bar) => bar && bar.lenmode !== "pixels");
  if (!bars.length || inner >= BAR) return 0;
  for (const bar of bars) Object.assign(bar, { len: BAR, lenmode: "pixels", y: 1, yanchor: "top" });
  return BAR - inner;
};
const count = (text) => (text ?? "").split("<br>").length;
// Names of points that another name covers are left to the hover text.
const apart = () => {
  const kept = [];
  for (const name of gd.querySelectorAll(".textpoint text")) {
    const one = name.getBoundingClientRect();
    const covered = kept.some((two) => one.left < two.right && one.right > two.left && one.top + 2 < two.bottom && one.bottom - 2 > two.top);
    name.style.visibility = covered ? "hidden" : "visible";
    if (!covered) kept.push(one);
  }
};
// plotly keeps no room for a bar's name where numbers push it outwards, and knows its margins once it has drawn.
const settle = async () => {
  const edge = gd.getBoundingClientRect().right, { w, r } = gd._fullLayout._size, changes = {};
  const ends = [...gd.querySelectorAll(".colorbar text")].map((one) => one.getBoundingClientRect().right - edge + 4);
  const over = Math.max(0, ...ends.filter((end) => end > 4)), names = shortened(gd.layout, w - over);
  if (over) changes["margin.r"] = r + over;
  if (names.some((name, at) => name !== gd.layout.annotations[at])) changes.annotations = names;
  if (Object.keys(changes).length) await Plotly.relayout(gd, changes);
  apart();
};
const draw = () => {
  const data = dark.matches ? walk(given.data, marks) : given.data.map(own);
  const layout = structuredClone(dark.matches ? walk(given.layout, marks) : given.layout);
  const natural = given.layout.width ?? 1000, wide = Math.min(natural, Math.max(least, room.clientWidth));
  const seen = Math.min(wide, room.clientWidth) - 32, title = given.layout.title ?? {};
  let more = 0;
  layout.width = wide;
  if (title.text) {
    const [text, n] = balanced(title.text, seen / 10);
    layout.title.text = text;
    more += 21 * (n - count(title.text));
  }
  if (title.subtitle?.text) {
    const [text, n] = lines(title.subtitle.text, seen / 6.5);
    layout.title.subtitle.text = text;
    more += 16 * (n - count(title.subtitle.text));
  }
  const { l = 80, r = 80, t = 100, b = 80 } = given.layout.margin ?? {};
  const narrow = given.layout.images?.length ? (wide - l - r) / (natural - l - r) : 1; // photos keep their shape
  const tall = (given.layout.height ?? 450) - t - b, fixed = names ? names.rows * names.tall : 0;
  const inner = fixed + (tall - fixed) * narrow, height = t + b + inner;
  if (turn && wide < natural) labels(layout.xaxis, wide - turn);
  if (names && narrow < 1) rows(layout, tall, inner);
  const below = layout.images?.length ? longer(data, inner) : 0;
  upright(data, layout, inner - (layout.images?.length ? 0 : 40));
  layout.margin = { ...layout.margin, t: (layout.margin?.t ?? 80) + more, b: b + below };
  layout.height = height + more + below;
  gd.parentElement.style.height = "auto"; // plotly.js wraps it in a box of the height that it was made for
  gd.style.width = `${wide}px`;
  gd.style.height = `${layout.height}px`;
  return Plotly.react(gd, data, layout).then(settle);
};
dark.addEventListener("change", draw);
let before = 0;
new ResizeObserver(() => {
  if (room.clientWidth !== before) draw();
  before = room.clientWidth;
}).observe(room);
const keep = (blob, kind) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${name}.${kind}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
};
// The buttons stand behind this script, and are not there yet.
part.addEventListener("click", async (event) => {
  const kind = event.target.closest("[data-as]")?.dataset.as;
  if (!kind) return;
  if (kind === "csv") {
    keep(new Blob([read("mm-numbers")], { type: "text/csv" }), kind);
    return;
  }
  const { width, height } = gd._fullLayout;
  const text = (await Plotly.toImage(gd, { format: kind, width, height, scale: 3 })).split(/,(.*)/s)[1];
  const data = kind === "svg" ? decodeURIComponent(text) : Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  keep(new Blob([data], { type: kind === "svg" ? "image/svg+xml" : "image/png" }), kind);
});
part.dataset.ready = "yes";
