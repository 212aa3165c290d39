// Where each position attends. Data: the JSON before this script; text goes in as text nodes only.
(() => {
  const me = document.currentScript, data = JSON.parse(me.previousElementSibling.textContent);
  const host = me.parentElement.querySelector(".mm-attention");
  if (host.dataset.ready) return;
  host.dataset.ready = "1";
  const HEAT = [[87, 16, 110], [137, 34, 106], [188, 55, 84], [227, 89, 51], [249, 142, 9], [249, 201, 50]];
  const make = (name, parent, text, attributes = {}) => {
    const one = document.createElement(name);
    if (text !== undefined) one.textContent = text;
    for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
    return parent ? parent.appendChild(one) : one;
  };
  const patterns = data.patterns.map(({ scale, data: text }) => ({
    scale, bytes: Uint8Array.from(atob(text), (c) => c.charCodeAt(0)),
  }));
  const [rows, cols] = data.grid, [x0, y0, x1, y1] = data.box;
  let head = data.head, query = data.start, pinned = query;

  host.replaceChildren();
  const left = make("div", host, undefined, { class: "mm-left" });
  const canvas = make("canvas", left, undefined, { tabindex: "0", role: "img", width: 420, height: 420 });
  const right = make("div", host, undefined, { class: "mm-right" });
  const words = data.queries.map((one, i) => [one, i]).filter(([one]) => one.text !== undefined);
  const buttons = new Map();
  if (words.length) {
    make("div", right, "asked from a word:", { class: "mm-note" });
    const row = make("div", right, undefined, { class: "mm-words" });
    for (const [one, i] of words) {
      const button = make("button", row, one.text, { type: "button" });
      button.addEventListener("click", () => { pinned = i; show(i); });
      buttons.set(i, button);
    }
  }
  const patches = data.queries.some((one) => one.row !== undefined);
  if (patches) make("div", right, "or from a patch: point at the picture, click to stay", { class: "mm-note" });
  const told = make("div", right, undefined, { class: "mm-told", "aria-live": "polite" });
  const key = make("div", right, undefined, { class: "mm-key" });
  make("span", key, "0");
  make("i", key);
  const most = make("span", key);

  // Every head as a small map of the same query; the chosen one is drawn large.
  const [across, small] = [data.across, []];
  if (data.heads.length > 1) {
    const overview = make("div", host, undefined, { class: "mm-overview", role: "group", "aria-label": "heads" });
    overview.style.gridTemplateColumns = `repeat(${across}, minmax(34px, 64px))`;
    data.heads.forEach((text, i) => {
      const button = make("button", overview, undefined, { type: "button", title: text, "aria-label": text });
      const map = make("canvas", button, undefined, { width: cols, height: rows });
      make("span", button, text);
      button.addEventListener("click", () => { head = i; draw(); });
      small.push([button, map]);
    });
  }

  const photo = new Image();
  photo.onload = () => { canvas.height = Math.round(420 * photo.height / photo.width); draw(); };
  photo.src = data.photo;

  const cell = (row, col) => [
    canvas.width * (x0 + (x1 - x0) * col / cols), canvas.height * (y0 + (y1 - y0) * row / rows),
    canvas.width * (x1 - x0) / cols, canvas.height * (y1 - y0) / rows,
  ];
  const colour = (part) => {
    const at = Math.min(part, 1) * (HEAT.length - 1), low = Math.min(Math.floor(at), HEAT.length - 2);
    const mix = HEAT[low].map((value, i) => Math.round(value + (HEAT[low + 1][i] - value) * (at - low)));
    return `rgba(${mix},${0.85 * Math.min(part, 1)})`;
  };
  const name = (one) => one.other !== undefined ? one.other : one.text !== undefined ? `“${one.text}”` : `patch (${one.row}, ${one.col})`;

  function drawSmall() {
    const n = data.keys.length;
    small.forEach(([button, map], i) => {
      const { scale, bytes } = patterns[i], pen = map.getContext("2d");
      const values = data.keys.map((one, k) => (one.row === undefined ? 0 : bytes[query * n + k] * scale[query]));
      const top = Math.max(...values, 1e-12);
      pen.clearRect(0, 0, cols, rows);
      data.keys.forEach((one, k) => {
        if (one.row === undefined) return;
        pen.fillStyle = colour(values[k] / top);
        pen.fillRect(one.col, one.row, 1, 1);
      });
      button.setAttribute("aria-pressed", String(i === head));
    });
  }
  function draw() {
    drawSmall();
    const { scale, bytes } = patterns[head], n = data.keys.length, pen = canvas.getContext("2d");
    const values = data.keys.map((_, i) => bytes[query * n + i] * scale[query]);
    const top = Math.max(...values.filter((_, i) => data.keys[i].row !== undefined), 1e-12);
    pen.imageSmoothingEnabled = photo.width > 3000;
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(photo, 0, 0, canvas.width, canvas.height);
    let sum = 0, best = 0, elsewhere = 0, rest = [];
    values.forEach((value, i) => {
      const one = data.keys[i];
      if (one.other !== undefined) { elsewhere += value; return; }
      if (one.row === undefined) { rest.push([value, one]); return; }
      sum += value;
      if (value >= values[best] || data.keys[best].row === undefined) best = i;
      pen.fillStyle = colour(value / top);
      pen.fillRect(...cell(one.row, one.col));
    });
    const own = data.queries[query];
    if (own.row !== undefined) {
      const [x, y, w, h] = cell(own.row, own.col);
      pen.lineWidth = 4; pen.strokeStyle = "#000"; pen.strokeRect(x, y, w, h);
      pen.lineWidth = 2; pen.strokeStyle = "#fff"; pen.strokeRect(x, y, w, h);
    }
    const share = (value) => `${(100 * value).toPrecision(3)} %`;
    rest.sort((a, b) => b[0] - a[0]);
    const others = rest.slice(0, 3).map(([value, one]) => `${name(one)} ${share(value)}`).join(", ");
    const which = data.heads[head] ? ` in ${data.heads[head]}` : "";
    told.textContent = `${name(own)} gives ${share(sum)} of its attention to the picture${which}, most to `
      + `${name(data.keys[best])}: ${share(values[best])}.` + (elsewhere ? ` Other patches ${share(elsewhere)}.` : "") + (others ? ` Words: ${others}.` : "");
    canvas.setAttribute("aria-label", told.textContent);
    most.textContent = share(top);
    for (const [i, button] of buttons) button.setAttribute("aria-pressed", String(i === query));
  }
  function show(i) { if (i >= 0 && i !== query) { query = i; draw(); } }
  const at = (row, col) => data.queries.findIndex((one) => one.row === row && one.col === col);
  const under = (event) => {
    const box = canvas.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.height;
    return at(Math.floor((y - y0) / (y1 - y0) * rows), Math.floor((x - x0) / (x1 - x0) * cols));
  };
  canvas.addEventListener("mousemove", (event) => show(under(event)));
  canvas.addEventListener("mouseleave", () => show(pinned));
  canvas.addEventListener("click", (event) => { const i = under(event); if (i >= 0) { pinned = i; show(i); } });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step || !patches) return;
    event.preventDefault();
    const own = data.queries[query];
    const i = own.row === undefined ? data.queries.findIndex((one) => one.row !== undefined)
      : at(own.row + step[0], own.col + step[1]);
    if (i >= 0) { pinned = i; show(i); }
  });
  // What is drawn now, as CSV.
  me.closest(".mm-view").numbers = () => {
    const { scale, bytes } = patterns[head], n = data.keys.length, quote = (text) => `"${text.replaceAll('"', '""')}"`;
    const lines = data.keys.map((one, i) => `${quote(name(one))},${bytes[query * n + i] * scale[query]}`);
    return `key,weight from ${quote(name(data.queries[query])).slice(1, -1)} ${data.heads[head]}\n${lines.join("\n")}\n`;
  };
})();
