"use strict";
// plotly.js travels gzipped; the figures are drawn when it is there, in the theme of the reader.
(async () => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent.trim()), c => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const draw = async () => {
    for (const place of document.querySelectorAll(".figure")) {
      const figure = structuredClone(figures[place.dataset.figure][dark.matches ? "dark" : "light"]);
      await Plotly.react(place, figure.data, figure.layout, {
        displaylogo: false, showSendToCloud: false, responsive: true, displayModeBar: "hover",
        modeBarButtonsToRemove: ["lasso2d", "select2d"], toImageButtonOptions: {format: "svg"},
      });
    }
    document.documentElement.dataset.ready = "yes";
  };
  dark.addEventListener("change", draw);
  await draw();
})();
