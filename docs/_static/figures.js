/* Draws the figures of a page, in the page's theme, with the site's own plotly.js. */
(() => {
  const here = document.currentScript.src;
  const config = {
    displaylogo: false, showSendToCloud: false, responsive: true,
    modeBarButtonsToRemove: ["lasso2d", "select2d"], toImageButtonOptions: { format: "svg" },
  };

  const isDark = () => {
    const theme = document.body.dataset.theme;
    return theme === "dark" || (theme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  };

  const draw = (box) => {
    const of = (theme) => box.querySelector(`script[data-for=${theme}]`);
    const data = (isDark() && of("dark")) || of("light");
    if (box.dataset.drawn === data.dataset.for) return;
    box.dataset.drawn = data.dataset.for;
    box.classList.toggle("mm-light-only", isDark() && data.dataset.for === "light");
    let to = box.querySelector(".mm-plot");
    if (!to) {
      to = document.createElement("div");
      to.className = "mm-plot";
      box.append(to);
    }
    const figure = JSON.parse(data.textContent);
    const room = Math.max(box.clientWidth, 640); // narrower, a title is cut off: a phone scrolls
    if (figure.layout.width > room) {
      if (figure.layout.height && figure.layout.yaxis && figure.layout.yaxis.scaleanchor) {
        figure.layout.height = Math.round(figure.layout.height * Math.max(0.72, room / figure.layout.width));
      }
      figure.layout.width = room;
    }
    Plotly.react(to, figure.data, figure.layout, config).then(() => { box.style.minHeight = ""; });
  };

  const start = () => {
    const boxes = [...document.querySelectorAll(".mm-figure")];
    if (!boxes.length) return;
    const all = () => boxes.forEach(draw);
    const script = document.createElement("script");
    script.src = new URL("plotly.min.js", here);
    script.onload = () => {
      all();
      new MutationObserver(all).observe(document.body, { attributeFilter: ["data-theme"] });
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
    };
    document.head.append(script);
  };

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
