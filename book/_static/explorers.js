// Loads the module of each explorer on the page when the reader comes near it.
const near = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    near.unobserve(target);
    import(new URL(`./elements/${target.localName.slice(3)}.js`, import.meta.url));
  }
}, { rootMargin: "100%" });

for (const element of document.querySelectorAll("*")) {
  if (element.localName.startsWith("tw-")) near.observe(element);
}
