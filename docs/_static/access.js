/* What the theme leaves out for screen readers and keyboards: levels, names, a way into long code. */
document.addEventListener("DOMContentLoaded", () => {
  for (const one of document.querySelectorAll(".caption[role=heading]")) one.setAttribute("aria-level", "2");
  document.querySelector("aside.sidebar-drawer")?.setAttribute("aria-label", "All pages");
  document.querySelector("aside.toc-drawer")?.setAttribute("aria-label", "This page");
  for (const one of document.querySelectorAll("pre")) if (one.scrollWidth > one.clientWidth) one.tabIndex = 0;
});
