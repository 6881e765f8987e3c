// Loads the module of each explorer on the page when the reader comes near it.
const near = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    near.unobserve(target);
    import(new URL(`./elements/${target.localName.slice(3)}.js`, import.meta.url));
  }
}, { rootMargin: "100%" });

// An explorer begins with its data; other elements of this book bring their own script.
for (const data of document.querySelectorAll("script[type='application/json']")) {
  if (data.parentElement.localName.startsWith("tw-")) near.observe(data.parentElement);
}
