// What is wider than its column scrolls by itself; then the keyboard must reach it.
const wide = () => {
  for (const element of document.querySelectorAll(".bd-article :is(div.math, table, pre, .output)")) {
    if (element.scrollWidth > element.clientWidth) element.tabIndex = 0;
    else element.removeAttribute("tabindex");
  }
};
addEventListener("resize", wide);
wide();

// Some browsers would show a notebook as text.
for (const link of document.querySelectorAll('a[href$=".ipynb"]:not([href*="://"])')) {
  link.download = "";
}
