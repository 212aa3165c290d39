// The caption: every token a radio button, with a bar for what the patches do for it.
import { at, list, made, prob, signed } from "./base.js";
import { steps } from "./picture.js";
import { now, onRender, set, showWord, state, texts } from "./state.js";

const caption = at("words");
let drawn = null;

const draw = (here) => {
  drawn = here;
  at("prompt").textContent = here.prompt;
  at("domain").textContent = here.note;
  const widest = Math.max(...here.totals.map(Math.abs)) || 1;
  list(caption, here.words.map((word, i) => {
    const button = made("button", word.joined ? "word joined" : "word", word.text);
    button.type = "button";
    button.setAttribute("role", "radio");
    const sure = word.before === null ? "" : `; the model is sure of it to ${prob(word.before)}`;
    button.disabled = here.maps[i] === null;
    button.title = button.disabled ? `${word.token}: not explained (mmlens look --every-word)${sure}`
      : `${word.token}: the patches add up to ${signed(here.totals[i])}${sure}`;
    if (button.disabled) return button;
    const bar = made("i", here.totals[i] < 0 ? "minus" : "");
    bar.style.width = `${100 * Math.abs(here.totals[i]) / widest}%`;
    button.append(bar);
    if (texts && word.before !== null) button.append(made("span", "sure", prob(word.before)));
    button.addEventListener("click", () => showWord(i));
    button.addEventListener("pointerenter", () => set({ overWord: i }));
    button.addEventListener("pointerleave", () => set({ overWord: null }));
    return button;
  }));
};

caption.addEventListener("keydown", (event) => {
  const buttons = [...caption.children], open = buttons.map((_, i) => i).filter((i) => !buttons[i].disabled);
  const here = open.indexOf(state.word), last = open.length - 1;
  let next = event.key in steps ? (here + steps[event.key] + last + 1) % (last + 1) : null;
  if (event.key === "Home") next = 0;
  if (event.key === "End") next = last;
  if (next === null) return;
  event.preventDefault();
  showWord(open[next]);
  buttons[open[next]].focus();
});

onRender(() => {
  if (drawn !== now()) draw(now());
  [...caption.children].forEach((button, i) => {
    button.setAttribute("aria-checked", String(i === state.word));
    button.tabIndex = i === state.word ? 0 : -1;
  });
});
