// Saves a view: as it is shown (PNG, SVG), and its numbers (CSV), from the page alone.
(() => {
  const view = document.currentScript.closest(".mm-view"), bar = view.querySelector(".mm-tools");
  if (bar.dataset.ready) return;
  bar.dataset.ready = "1";
  const SVG = document.body.namespaceURI.replace("1999/xhtml", "2000/svg");
  const keep = (blob, kind) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${bar.dataset.name}.${kind}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const drawn = () => {
    const copy = view.cloneNode(true), live = [...view.querySelectorAll("canvas")];
    copy.querySelectorAll("canvas").forEach((one, i) => {
      const image = document.createElement("img");
      image.src = live[i].toDataURL();
      image.style.cssText = `width:${live[i].clientWidth}px;height:${live[i].clientHeight}px`;
      one.replaceWith(image);
    });
    for (const one of copy.querySelectorAll("script,.mm-tools")) one.remove();
    const [r, g, b] = getComputedStyle(view).backgroundColor.match(/\d+/g).map(Number);
    copy.dataset.scheme = r + g + b < 384 ? "dark" : "light";
    copy.style.overflow = "visible";
    const width = Math.ceil(Math.max(view.scrollWidth, view.getBoundingClientRect().width));
    const height = Math.ceil(view.getBoundingClientRect().height - bar.offsetHeight);
    const text = new XMLSerializer().serializeToString(copy);
    return { width, height, svg: `<svg xmlns="${SVG}" width="${width}" height="${height}">`
      + `<foreignObject width="100%" height="100%">${text}</foreignObject></svg>` };
  };
  const makers = {
    svg: () => keep(new Blob([drawn().svg], { type: "image/svg+xml" }), "svg"),
    png: async () => {
      const { width, height, svg } = drawn(), image = new Image();
      image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
      await image.decode();
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [2 * width, 2 * height];
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => keep(blob, "png"));
    },
    csv: () => {
      const held = view.querySelector("script.mm-numbers");
      const text = held ? JSON.parse(held.textContent) : view.numbers();
      keep(new Blob([text], { type: "text/csv" }), "csv");
    },
  };
  for (const one of bar.querySelectorAll("button")) one.addEventListener("click", makers[one.dataset.as]);
})();
