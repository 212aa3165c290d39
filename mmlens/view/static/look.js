"use strict";
// One state, one render. Everything that comes from a model is set as text, never as HTML.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const [rows, cols] = data.grid;
  const MISSING = -32768;
  const at = (id) => document.getElementById(id);
  const made = (tag, cls, text) => {
    const node = document.createElement(tag);
    if (cls) node.className = cls;
    if (text !== undefined) node.textContent = text;
    return node;
  };

  // -- numbers -------------------------------------------------------------------------------
  const unpack = ({ scale, data: packed }) => {
    const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const flat = new Float32Array(rows * cols).fill(NaN);
    data.patches.forEach(([row, col], i) => {
      const raw = view.getInt16(2 * i, true);
      if (raw !== MISSING) flat[row * cols + col] = raw * scale;
    });
    return flat;
  };
  const topOf = (values) => values.reduce((m, v) => (Math.abs(v) > m ? Math.abs(v) : m), 0) || 1;
  const said = (v) => (Number.isNaN(v) ? "no value" : (v > 0 ? "+" : "") + Number(v.toPrecision(3))).replace("-", "−");
  const bare = (v) => String(Number(v.toPrecision(3))).replace("-", "−");
  const maps = data.words.map(unpack);
  const totals = maps.map((m) => m.reduce((s, v) => s + (v || 0), 0));
  const allTop = Math.max(...maps.map(topOf));
  const activations = {};
  for (const [name, one] of Object.entries(data.neurons)) activations[name] = unpack(one);

  // -- colours: hue is the sign, opacity the size; heat for what has no sign -------------------
  const HEAT = [[87, 16, 110], [137, 34, 106], [188, 55, 84], [227, 89, 51], [249, 142, 9], [249, 201, 50]];
  const heat = (t) => {
    const x = Math.min(Math.max(t, 0), 1) * (HEAT.length - 1), i = Math.min(Math.floor(x), HEAT.length - 2);
    return HEAT[i].map((c, k) => c + (x - i) * (HEAT[i + 1][k] - c));
  };
  const colour = (v, top, kind) => {
    if (Number.isNaN(v)) return [128, 128, 128, 120];
    const size = Math.min(Math.abs(v) / top, 1);
    if (kind === "signed") return [...(v >= 0 ? [31, 119, 255] : [255, 82, 46]), 217 * size];
    return v <= 0 ? [0, 0, 0, 0] : [...heat(size), 225 * size];
  };
  const paint = (canvas, values, top, kind) => {
    canvas.width = cols; canvas.height = rows;
    const pen = canvas.getContext("2d"), image = pen.createImageData(cols, rows);
    values.forEach((v, i) => image.data.set(colour(v, top, kind), 4 * i));
    pen.putImageData(image, 0, 0);
  };
  const frame = (cell, row, col) => {
    cell.hidden = false;
    cell.style.cssText = `left:${100 * col / cols}%;top:${100 * row / rows}%;width:${100 / cols}%;height:${100 / rows}%`;
  };

  // -- state ---------------------------------------------------------------------------------
  const state = { word: data.target, neuron: null, overWord: null, overNeuron: null, patch: null, all: false };
  const shown = () => {
    const name = state.overNeuron ?? (state.overWord === null ? state.neuron : null);
    if (name !== null) {
      const values = activations[name];
      return { name, values, kind: "heat", top: Math.max(values.reduce((m, v) => (v > m ? v : m), 0), 1e-9) };
    }
    const word = state.overWord ?? state.word;
    return { word, values: maps[word], kind: "signed", top: state.all ? allTop : topOf(maps[word]) };
  };
  const quoted = (word) => `“${data.words[word].text}”`;

  const renderMap = () => {
    const now = shown(), word = now.word ?? state.word;
    paint(at("overlay"), now.values, now.top, now.kind);
    const stops = [...Array(9).keys()].map((i) => {
      const t = now.kind === "signed" ? i / 4 - 1 : i / 8;
      const [r, g, b, a] = colour(t, 1, now.kind), f = a / 255;
      return `rgb(${[r, g, b].map((c) => Math.round(c * f + 150 * (1 - f))).join(" ")})`;
    });
    at("bar").style.background = `linear-gradient(90deg, ${stops.join(", ")})`;
    const peak = data.tops[state.word].find((row) => row.neuron === now.name);
    if (peak) frame(at("peak"), ...peak.patch); else at("peak").hidden = true;
    if (now.kind === "signed") {
      at("map-title").textContent = `Where the picture speaks for ${quoted(word)}`;
      at("low").textContent = `−${bare(now.top)} lowers`;
      at("high").textContent = `raises +${bare(now.top)}`;
    } else {
      at("map-title").textContent = `Where ${now.name} is active`;
      at("low").textContent = "0 or below";
      at("high").textContent = `activation ${bare(now.top)}`;
    }
    renderReadout(now, word);
  };

  const renderReadout = (now, word) => {
    if (state.patch === null) {
      at("here").hidden = true;
      at("readout").textContent = now.kind === "signed"
        ? `All patches together: ${said(totals[word])} to the logit of ${quoted(word)}. Point at a patch for its number.`
        : `The frame marks the patch where ${now.name} does most for ${quoted(word)}.`;
      return;
    }
    const [row, col] = state.patch, value = now.values[row * cols + col];
    frame(at("here"), row, col);
    const rank = now.values.filter((v) => v > value).length + 1;
    const what = now.kind === "signed" ? `to the logit of ${quoted(word)}` : `activation of ${now.name}`;
    at("readout").textContent = `Patch row ${row}, column ${col}: ${now.kind === "signed" ? said(value) : bare(value)} ${what}`
      + (Number.isNaN(value) ? "." : `, rank ${rank} of ${data.patches.length}.`);
  };

  // -- words ---------------------------------------------------------------------------------
  const words = at("words");
  words.textContent = "";
  const largest = Math.max(...totals.map(Math.abs)) || 1;
  const buttons = data.words.map((word, i) => {
    const button = made("button", word.joined ? "word joined" : "word", word.text);
    button.type = "button";
    button.setAttribute("role", "radio");
    button.title = `${word.token}: the patches add up to ${said(totals[i])}`;
    const bar = made("i", totals[i] < 0 ? "minus" : "");
    bar.style.width = `${100 * Math.abs(totals[i]) / largest}%`;
    button.append(bar);
    button.addEventListener("click", () => choose(i));
    button.addEventListener("pointerenter", () => { state.overWord = i; renderMap(); });
    button.addEventListener("pointerleave", () => { state.overWord = null; renderMap(); });
    words.append(button);
    return button;
  });
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  words.addEventListener("keydown", (event) => {
    const last = buttons.length - 1;
    let next = event.key in step ? (state.word + step[event.key] + last + 1) % (last + 1) : null;
    if (event.key === "Home") next = 0;
    if (event.key === "End") next = last;
    if (next === null) return;
    event.preventDefault();
    choose(next);
    buttons[next].focus();
  });
  const choose = (i) => {
    Object.assign(state, { word: i, neuron: null, overWord: null, overNeuron: null });
    render();
  };

  // -- neurons -------------------------------------------------------------------------------
  const picture = at("picture"), ratio = at("photo").style.getPropertyValue("--ratio");
  const place = document.querySelector(".window").style.cssText;
  const renderTable = () => {
    const top = Math.max(...data.tops[state.word].map((row) => Math.abs(row.score ?? 0))) || 1;
    const wanted = data.words[state.word].text.toLowerCase();
    at("who-title").textContent = `Neurons that speak for ${quoted(state.word)}`;
    at("neurons").replaceChildren(...data.tops[state.word].map((one) => {
      const row = made("tr");
      row.id = one.neuron;
      const mini = made("button", "mini sharp");
      mini.type = "button";
      mini.style.setProperty("--ratio", ratio);
      mini.setAttribute("aria-label", `Show on the picture where ${one.neuron} is active`);
      mini.addEventListener("click", () => {
        state.neuron = state.neuron === one.neuron ? null : one.neuron;
        mark();
        renderMap();
      });
      const photo = made("img");
      photo.src = picture.src; photo.alt = "";
      const window_ = made("div", "window"), canvas = made("canvas"), cell = made("div", "cell");
      window_.style.cssText = place;
      const values = activations[one.neuron];
      paint(canvas, values, Math.max(values.reduce((m, v) => (v > m ? v : m), 0), 1e-9), "heat");
      frame(cell, ...one.patch);
      window_.append(canvas, cell);
      mini.append(photo, window_);
      const looks = made("td"), who = made("td"), says = made("td");
      looks.append(mini);
      const link = made("a", "id", one.neuron);
      link.href = `#${one.neuron}`;
      const score = made("div", "score"), bar = made("b", one.score < 0 ? "minus" : "");
      bar.style.width = `${Math.max(2, 60 * Math.abs(one.score ?? 0) / top)}px`;
      score.append(bar, made("span", "", said(one.score ?? NaN)));
      who.append(link, score, made("div", "at", `at row ${one.patch[0]}, column ${one.patch[1]}`));
      const chips = made("ul", "chips");
      for (const word of data.neurons[one.neuron].says) {
        const same = word.replaceAll("·", "").toLowerCase() === wanted;
        chips.append(made("li", same ? "same" : "", word));
      }
      says.append(chips);
      row.append(looks, who, says);
      row.addEventListener("pointerenter", () => { state.overNeuron = one.neuron; renderMap(); });
      row.addEventListener("pointerleave", () => { state.overNeuron = null; renderMap(); });
      return row;
    }));
    mark();
  };
  const mark = () => {
    buttons.forEach((button, i) => {
      button.setAttribute("aria-checked", String(i === state.word));
      button.tabIndex = i === state.word ? 0 : -1;
    });
    for (const row of at("neurons").children) {
      row.classList.toggle("chosen", row.id === state.neuron);
      row.querySelector("button").setAttribute("aria-pressed", String(row.id === state.neuron));
    }
  };

  // -- the picture under pointer and arrow keys ------------------------------------------------
  const photo = at("photo"), overlay = at("overlay");
  photo.addEventListener("pointermove", (event) => {
    const area = overlay.getBoundingClientRect();
    const col = Math.floor(cols * (event.clientX - area.left) / area.width);
    const row = Math.floor(rows * (event.clientY - area.top) / area.height);
    state.patch = row >= 0 && col >= 0 && row < rows && col < cols ? [row, col] : null;
    renderMap();
  });
  const leave = () => { state.patch = null; renderMap(); };
  photo.addEventListener("pointerleave", leave);
  photo.addEventListener("blur", leave);
  photo.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return leave();
    if (!(event.key in step)) return;
    event.preventDefault();
    const [row, col] = state.patch ?? [0, 0];
    const down = { ArrowDown: 1, ArrowUp: -1 }[event.key] ?? 0, right = { ArrowRight: 1, ArrowLeft: -1 }[event.key] ?? 0;
    state.patch = state.patch === null ? [0, 0]
      : [Math.min(Math.max(row + down, 0), rows - 1), Math.min(Math.max(col + right, 0), cols - 1)];
    renderMap();
  });
  document.querySelectorAll("input[name=scale]").forEach((input) => input.addEventListener("change", () => {
    state.all = input.value === "all" && input.checked;
    renderMap();
  }));
  at("bare").addEventListener("change", (event) => photo.classList.toggle("bare", event.target.checked));

  // -- addresses: page.html#L3.17 opens on that neuron -----------------------------------------
  const follow = () => {
    const name = decodeURIComponent(location.hash.slice(1));
    if (!(name in data.neurons)) return;
    const has = (i) => data.tops[i].some((row) => row.neuron === name);
    const word = has(state.word) ? state.word : data.tops.findIndex((_, i) => has(i));
    if (word < 0) return;
    Object.assign(state, { word, neuron: name, overNeuron: null, overWord: null });
    render();
    at(name).scrollIntoView({ block: "nearest" });
  };
  addEventListener("hashchange", follow);
  const render = () => { renderTable(); renderMap(); };
  render();
  follow();
})();
