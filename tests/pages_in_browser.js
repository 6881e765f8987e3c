// What tests/test_pages_in_browser.py asks a page. Each function runs in the page and returns plain
// data: lists of what is wrong, in words that name the element.

// Every element, with what explorers hold in their shadow, in document order.
const everything = (node = document) =>
  [...node.children].flatMap((element) => [
    element,
    ...(element.shadowRoot ? everything(element.shadowRoot) : []),
    ...everything(element),
  ]);
// An explorer begins with its data; other elements of this book's own may come without.
const isExplorer = (element) => element.localName.startsWith("tw-") &&
  element.firstElementChild?.matches("script[type='application/json']");
const isShown = (element) => element.getClientRects().length > 0;
const told = (element) => {
  const start = element.cloneNode(false).outerHTML.replace(/<\/[^>]*>$/, "");
  return `${start.slice(0, 160)} ${element.textContent.trim().slice(0, 40)}`.replace(/\s+/g, " ");
};

// The words that stand for a picture to those who do not see it.
const wordsOf = (figure) => {
  const named = (figure.getAttribute("aria-labelledby") ?? "").split(" ").filter(Boolean);
  const root = figure.getRootNode();
  const title = figure.querySelector(":scope > title");
  return [
    figure.getAttribute("alt"),
    figure.getAttribute("aria-label"),
    ...named.map((id) => root.getElementById(id)?.textContent),
    title?.textContent,
  ].join(" ").trim();
};

const facts = () => {
  const elements = everything();
  const found = { lang: document.documentElement.lang, title: document.title };

  const headings = elements.filter((e) => /^h[1-6]$/.test(e.localName) && isShown(e));
  found.h1 = headings.filter((e) => e.localName === "h1").map(told);
  found.jumps = headings
    .filter((e, i) => Number(e.localName[1]) > (i ? Number(headings[i - 1].localName[1]) : 0) + 1)
    .map(told);

  // A picture that is hidden from assistive technology is decoration, and so is one in a button or
  // a link with a name of its own.
  const silent = (e) =>
    !wordsOf(e) &&
    !e.closest("[aria-hidden=true]") &&
    !e.parentElement?.closest("svg") &&
    !e.closest("button, a, [role=img]")?.matches("[aria-label], [title]");
  found.silent = elements
    .filter((e) => ["svg", "img", "canvas"].includes(e.localName) && silent(e))
    .map(told);

  found.explorers = elements.filter(isExplorer).map((e) => {
    const figures = [...e.querySelectorAll("svg, img")];
    return {
      name: e.localName,
      runs: Boolean(e.shadowRoot),
      fallback: figures.map(wordsOf).join(" ").trim(),
    };
  });

  const withId = new Map();
  for (const element of elements) {
    if (element.id) withId.set(element.id, [...(withId.get(element.id) ?? []), element]);
  }
  // Twice the same clip path is harmless; twice the target of a link is not.
  const isWrong = (id, isLink) => {
    if (id === "top") return false;
    const targets = withId.get(id) ?? [];
    if (targets.length < 2) return targets.length === 0;
    return isLink || new Set(targets.map((e) => e.outerHTML)).size > 1;
  };
  found.targets = [];
  for (const element of elements) {
    for (const { name, value } of element.attributes) {
      const isLink = element.localName === "a" && name === "href" && /^#./.test(value);
      let ids = [];
      if (isLink || (/(^|:)href$/.test(name) && /^#./.test(value))) ids = [value.slice(1)];
      else if (/^aria-(labelledby|describedby|controls)$/.test(name)) ids = value.split(/\s+/);
      else if (name === "for") ids = [value];
      else ids = [...value.matchAll(/url\(["']?#([^"')]+)/g)].map((match) => match[1]);
      for (const id of ids.filter(Boolean).map(decodeURIComponent)) {
        if (element.getRootNode() === document && isWrong(id, isLink)) {
          const count = withId.get(id)?.length ?? 0;
          found.targets.push(`#${id} is there ${count} times: ${told(element)}`);
        }
      }
    }
  }

  const length = (e) => e.textContent.trim().length;
  found.selfTests = [...document.querySelectorAll(".self-test")].map((e) => ({
    question: e.textContent.trim().replace(/\s+/g, " ").slice(0, 80),
    right: e.querySelectorAll("details.right").length,
    wrong: e.querySelectorAll("details.wrong").length,
    unexplained: [...e.querySelectorAll("details")]
      .filter((d) => length(d) < length(d.firstElementChild) + 20)
      .map(told),
  }));

  found.hosts = [...document.querySelectorAll(
    "link[rel~=preconnect], link[rel~=dns-prefetch], link[rel~=stylesheet], link[rel~=preload], " +
    "script[src], img[src], iframe, object, embed, audio, video, source",
  )].map((e) => e.src || e.href || e.data || "").filter((at) => /^https?:/.test(at))
    .filter((at) => new URL(at).origin !== location.origin);
  return found;
};

// Style sheets without a rule for this page, and scripts for parts that it does not have.
const unused = () => {
  const states = /::?(before|after|marker|hover|focus-visible|focus-within|focus|active)\b/g;
  const rulesOf = (sheet) => [...sheet.cssRules].flatMap((rule) =>
    rule.styleSheet ? rulesOf(rule.styleSheet) : rule.cssRules?.length ? rulesOf(rule) : [rule]);
  const loaded = new Set(
    [...document.fonts].filter((f) => f.status === "loaded").map((f) => f.family.replace(/"/g, "")),
  );
  const applies = (rule) => {
    if (rule.type === CSSRule.FONT_FACE_RULE) {
      return loaded.has(rule.style.getPropertyValue("font-family").replace(/["']/g, ""));
    }
    try {
      // A rule that only names colors for later use is on the whole page.
      const selector = rule.selectorText.replace(states, "");
      const found = [...document.querySelectorAll(selector)];
      return found.some((e) => !e.matches("html, head, head *, body"));
    } catch {
      return false;
    }
  };
  const sheets = [...document.styleSheets].filter((s) => s.href && !rulesOf(s).some(applies));
  const parts = {
    "copybutton.js": "div.highlight pre",
    "clipboard.min.js": "div.highlight pre",
    "togglebutton.js": ".toggle, .admonition.dropdown",
    "design-tabs.js": ".sd-tab-set",
  };
  const scripts = [...document.scripts].map((s) => s.src.split("/").at(-1).split("?")[0]).filter(
    (name) => (parts[name] && !document.querySelector(parts[name])) ||
      (name === "explorers.js" && !everything().some(isExplorer)),
  );
  return [...sheets.map((s) => s.href.split("/").at(-1)), ...scripts];
};

// Comes near everything once, so that what loads late is loaded.
const readThrough = async () => {
  for (let y = 0; y < document.documentElement.scrollHeight; y += innerHeight) {
    scrollTo({ top: y, behavior: "instant" });
    await new Promise(requestAnimationFrame);
  }
  scrollTo({ top: 0, behavior: "instant" });
};
const allRun = () => everything().filter(isExplorer).every((element) => element.shadowRoot);
const openAll = () => {
  for (const details of document.querySelectorAll("details:not([open])")) {
    details.open = true;
    details.setAttribute("data-folded", "");
  }
};
const foldAgain = () => {
  for (const details of document.querySelectorAll("[data-folded]")) details.open = false;
};

// What makes the page wider than the window, the innermost first.
const tooWide = () => {
  const root = document.documentElement;
  if (root.scrollWidth <= innerWidth) return [];
  const scrolls = (e) => e && e !== root && e !== document.body &&
    (getComputedStyle(e).overflowX !== "visible" || scrolls(e.parentElement));
  const over = [...document.body.querySelectorAll("*")].filter(
    (e) => e.getBoundingClientRect().right > innerWidth + 0.5 && !scrolls(e.parentElement),
  );
  return [`${root.scrollWidth} px`, ...over.reverse().slice(0, 3).map(told)];
};

// One of each kind of what the keyboard reaches, focused as by the keyboard: which show nothing?
const focusUnseen = () => {
  const look = (e) => {
    const style = getComputedStyle(e);
    const outline = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
    return [outline, style.boxShadow, style.backgroundColor, style.borderColor].join();
  };
  const seen = new Set();
  const lost = [];
  for (const element of everything()) {
    if (!element.matches("a[href], button, input, select, summary, [tabindex='0']")) continue;
    const names = [element, element.parentElement].map((e) => `${e?.localName} ${e?.className}`);
    const kind = names.join();
    if (seen.has(kind) || !isShown(element)) continue;
    const before = look(element);
    element.focus({ preventScroll: true });
    if (element.getRootNode().activeElement !== element) continue;
    seen.add(kind);
    if (look(element) === before) lost.push(told(element));
    element.blur();
  }
  return lost;
};

// axe-core looks at every element. What it has nothing to say on, or would say many times, is made
// short first, without a change to how the page looks: the inside of pictures, which are one thing
// to a screen reader; set formulas, which are hidden from it; code whose colors were there before.
const shorten = () => {
  for (const picture of document.querySelectorAll("svg[role=img]")) {
    for (const part of [...picture.children]) if (part.localName !== "title") part.remove();
  }
  for (const formula of document.querySelectorAll(".katex-html")) formula.textContent += "";
  const seen = new Set();
  for (const block of document.querySelectorAll("pre")) {
    const fresh = [...block.querySelectorAll("span")].filter((e) => !seen.has(e.className));
    if (fresh.length) fresh.forEach((e) => seen.add(e.className));
    else block.textContent += "";
  }
  dispatchEvent(new Event("resize"));
};

// Marks one text of each kind: tag, color, size, and everything behind it. Its contrast is that of
// all of its kind. Explorers are looked at as a whole.
const sample = () => {
  const known = new Map();
  const behind = (e) => {
    if (!e) return "";
    if (!known.has(e)) {
      const { backgroundColor, backgroundImage, opacity } = getComputedStyle(e);
      const own = `${backgroundColor} ${backgroundImage} ${opacity} `;
      known.set(e, (own === "rgba(0, 0, 0, 0) none 1 " ? "" : own) + behind(e.parentElement));
    }
    return known.get(e);
  };
  const seen = new Set();
  for (const element of document.body.querySelectorAll("*")) {
    element.removeAttribute("data-sample");
    const hasText = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!isExplorer(element) && (!hasText || !isShown(element))) continue;
    const { color, fontSize, fontWeight } = getComputedStyle(element);
    const kind = [element.localName, color, fontSize, fontWeight, behind(element)].join();
    if (seen.has(kind) && !isExplorer(element)) continue;
    seen.add(kind);
    element.setAttribute("data-sample", "");
  }
};

// What a reader without scripts sees.
const withoutScripts = () => {
  const article = document.querySelector(".bd-article") ?? document.querySelector("main");
  const formulas = [...article.querySelectorAll(".katex")].filter((e) => !e.closest("details"));
  const wrong = formulas.filter((e) => !isShown(e)).map((e) => `no formula: ${told(e)}`);
  for (const explorer of everything().filter(isExplorer)) {
    const figure = explorer.querySelector("svg, img")?.getBoundingClientRect();
    if (!figure || figure.width < 100 || figure.height < 50) {
      wrong.push(`no figure in place of ${explorer.localName}`);
    }
  }
  const dead = [...document.querySelectorAll("button")].filter(isShown);
  return wrong.concat(dead.map((e) => `a button without a script: ${told(e)}`));
};
// How much text there is to see.
const words = () => {
  const article = document.querySelector(".bd-article") ?? document.querySelector("main");
  return article.innerText.split(/\s+/).length;
};

// The theme follows the system until the reader chooses.
const theme = () => document.documentElement.dataset.theme;
