// Runs in the book's first page and turns it into the whole book, for paper: a title page, a table
// of contents, and every page behind it. book/pdf.py prints the result. Returns the names that
// links lead to and nothing has.
async (about) => {
  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };

  // --- The pages, in the order of the sidebar --------------------------------------------------

  const sheets = [];
  let part = "";
  for (const found of document.querySelectorAll("nav.bd-links :is(p.caption, a.internal)")) {
    if (found.matches("p")) part = found.textContent.trim();
    else if (new URL(found.href).origin === location.origin) {
      const path = new URL(found.href).pathname;
      if (!sheets.some((sheet) => sheet.path === path)) {
        sheets.push({ id: `p${sheets.length}`, path, part });
      }
    }
  }
  for (const sheet of sheets) {
    const answer = await fetch(sheet.path);
    if (!answer.ok) throw new Error(`${sheet.path}: ${answer.status}`);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    sheet.article = document.adoptNode(page.querySelector(".bd-article"));
    sheet.title = heading(sheet.article.querySelector("h1"));
    clean(sheet);
    name(sheet);
    unfold(sheet);
  }

  /** The text of a heading, without the sign that links to it. */
  function heading(element) {
    const copy = element.cloneNode(true);
    for (const link of copy.querySelectorAll(".headerlink")) link.remove();
    return copy.textContent.trim();
  }

  /** What works on a screen only goes; so does code that is folded away, whose figure stays. */
  function clean({ article }) {
    const screen = "script, .headerlink, .toctree-wrapper, .copybtn, details.above-input";
    for (const element of article.querySelectorAll(screen)) element.remove();
    for (const output of article.querySelectorAll("details.hide")) {
      output.querySelector("summary")?.remove();
      output.replaceWith(...output.childNodes);
    }
  }

  /** Names and links that hold in one document: pages use the same names for their sections. */
  function name({ id, path, article }) {
    for (const element of article.querySelectorAll("[id]")) {
      // A figure's own names stay: the same glyph is the same everywhere.
      if (!element.closest("svg")) element.id = `${id}-${element.id}`;
    }
    for (const link of article.querySelectorAll("a[href]")) {
      const target = new URL(link.getAttribute("href"), location.origin + path);
      if (target.origin !== location.origin) continue;
      const to = sheets.find((sheet) => sheet.path === target.pathname);
      const place = decodeURIComponent(target.hash.slice(1));
      if (to) link.setAttribute("href", place ? `#${to.id}-${place}` : `#${to.id}`);
      // What is no page of the book, such as a notebook, lies where the book is published.
      else link.href = new URL(target.pathname.slice(1) + target.hash, about.address);
    }
    for (const image of article.querySelectorAll("img[src]")) {
      image.src = new URL(image.getAttribute("src"), location.origin + path);
      image.loading = "eager";
    }
  }

  /** Paper does not unfold: hints and answers stand at the end of their chapter, with a link. */
  function unfold({ id, article }) {
    const answers = make("section", { class: "answers" });
    const folded = [...article.querySelectorAll("details")];
    let section = null;
    let question = null;
    for (const [place, details] of folded.entries()) {
      if (details.parentElement.closest("details")) {
        details.open = true;
        continue;
      }
      const around = details.closest("section");
      if (around !== section) {
        section = around;
        const title = heading(section.querySelector("h1, h2, h3, h4"));
        answers.append(make("p", { class: "of" }, make("a", { href: `#${section.id}` }, title)));
      }
      const test = details.closest(".self-test");
      if (test && test !== question) {
        question = test;
        answers.append(test.querySelector("p").cloneNode(true));
      }
      const anchor = `${id}-folded-${place}`;
      const summary = details.querySelector("summary");
      summary.remove();
      const kind = { right: "Right: ", wrong: "Wrong: " }[details.className] ?? "";
      answers.append(make(
        "div",
        { id: anchor, class: `unfolded ${details.className}` },
        make("p", { class: "label" }, kind, ...summary.cloneNode(true).childNodes),
        ...details.childNodes,
      ));
      details.replaceWith(make(
        "p",
        { class: `folded ${details.className}` },
        make("a", { href: `#${anchor}` }, ...summary.childNodes),
        make("span", { class: "page-of", "data-to": anchor }, "000"),
      ));
    }
    if (!answers.childElementCount) return;
    answers.id = `${id}-answers`;
    answers.prepend(make("h2", {}, "Hints and answers"));
    (article.querySelector(":scope > section") ?? article).append(answers);
  }

  // --- The document ----------------------------------------------------------------------------

  const entry = (level, to, title) => make(
    "p",
    { class: `entry level-${level}` },
    make("a", { href: `#${to}` }, title),
    make("span", { class: "page-of", "data-to": to }, "000"),
  );
  const contents = make("section", { class: "contents", id: "contents" });
  contents.append(make("h1", {}, "Contents"));
  part = "";
  for (const { id, article, title, part: own } of sheets) {
    if (own !== part) contents.append(make("p", { class: "part" }, (part = own)));
    contents.append(entry(1, id, title));
    for (const below of article.querySelectorAll("h2")) {
      const to = below.closest("[id]")?.id;
      if (to) contents.append(entry(2, to, heading(below)));
    }
  }
  const logo = document.querySelector(".navbar-brand img")?.src;
  const front = make(
    "section",
    { class: "front" },
    ...(logo ? [make("img", { src: logo, alt: "" })] : []),
    make("p", { class: "title" }, about.title),
    make("p", { class: "subtitle" }, about.subtitle),
    make("p", { class: "address" }, make("a", { href: about.address }, about.address)),
    make("p", { class: "author" }, about.author),
  );

  // A page's running title is that of its chapter: CSS knows it by the kind of page.
  const style = make("style");
  for (const { id, title } of sheets) {
    style.append(`@page ${id} { @top-left { content: ${JSON.stringify(title)}; } }\n`);
  }
  document.head.append(style);
  document.title = about.title;
  document.body.className = "paper";
  document.body.replaceChildren(front, make("article", { class: "bd-article" }, contents));
  for (const { id, article } of sheets) {
    article.id = id;
    article.classList.add("sheet");
    article.style.page = id;
    document.body.append(article);
  }

  await document.fonts.ready;
  await Promise.all([...document.images].map((image) => image.decode()));

  // Paper does not scroll: what is wider than it becomes smaller.
  for (const wide of document.querySelectorAll("article :is(div.math, table)")) {
    const room = wide.parentElement.clientWidth;
    if (wide.scrollWidth > room && room > 0) wide.style.zoom = room / wide.scrollWidth;
  }

  const ids = new Set([...document.querySelectorAll("[id]")].map((element) => element.id));
  return [...document.querySelectorAll("a[href^='#']")]
    .map((link) => decodeURIComponent(link.getAttribute("href").slice(1)))
    .filter((to) => !ids.has(to));
}
