// Links to every chapter on the reader's own JupyterHub:
//
//   <tw-hub><p>…</p><ul><li><a data-chapter="01_attention" href="https://hub.example.edu/hub/…">…
//
// The links are there already, for a hub that does not exist; where this runs, the reader names the
// real one, and it is remembered in this browser. `?chapter=01_attention` in the page's address, as
// the header's button has it, marks that chapter's link.

const KEY = "tw-hub";
const STYLE = `
tw-hub label { display: block; font-weight: 600; }
tw-hub input { background: transparent; border: 1px solid currentColor; border-radius: 0.3rem;
  box-sizing: border-box; color: inherit; font: inherit; max-width: 100%; min-height: 2rem;
  padding: 0.25rem 0.5rem; width: 28rem; }
tw-hub input[aria-invalid="true"] { border-style: dashed; }
tw-hub li:has([aria-current]) { font-weight: 600; }
`;

/** The hub's address without what follows it: a page of the hub may be pasted. Null: no address. */
export function hubOf(text) {
  const typed = text.trim();
  let url;
  try {
    url = new URL(/^https?:\/\//i.test(typed) ? typed : `https://${typed}`);
  } catch {
    return null;
  }
  if (!url.hostname.includes(".") && url.hostname !== "localhost") return null;
  return url.origin + url.pathname.replace(/\/(hub|user)(\/.*)?$/, "").replace(/\/+$/, "");
}

/** What was remembered; a browser may forbid it. */
function remembered() {
  try { return localStorage.getItem(KEY) ?? ""; } catch { return ""; }
}

function remember(hub) {
  try { localStorage.setItem(KEY, hub); } catch { /* It is asked for again, next time. */ }
}

class Hub extends HTMLElement {
  connectedCallback() {
    if (this.input) return;
    this.list = this.querySelector("ul");
    this.links = [...this.list.querySelectorAll("a")];
    this.paths = this.links.map((link) => link.href.slice(new URL(link.href).origin.length));
    this.input = Object.assign(document.createElement("input"), {
      type: "url", id: "tw-hub-address", value: remembered(), autocomplete: "url",
      placeholder: "https://hub.example.edu",
    });
    this.input.setAttribute("aria-describedby", "tw-hub-told");
    const label = Object.assign(document.createElement("label"), {
      htmlFor: this.input.id, textContent: "Address of your JupyterHub",
    });
    this.told = Object.assign(document.createElement("p"), { id: "tw-hub-told" });
    this.told.setAttribute("role", "status");
    const style = Object.assign(document.createElement("style"), { textContent: STYLE });
    this.querySelector("p").replaceWith(style, label, this.input, this.told);
    this.mark(new URLSearchParams(location.search).get("chapter"));
    this.input.addEventListener("input", () => this.show());
    this.show();
  }

  /** Make the links anew, and say where they lead. */
  show() {
    const typed = this.input.value.trim();
    const hub = typed && hubOf(typed);
    this.list.hidden = !hub;
    this.input.setAttribute("aria-invalid", String(Boolean(typed) && !hub));
    if (!typed) this.told.textContent = "Type it, and the links to all chapters appear here.";
    else if (!hub) this.told.textContent = "This is no web address yet, such as hub.example.edu.";
    else this.told.textContent = `These open on ${hub}, remembered in this browser:`;
    remember(hub ? typed : "");
    if (!hub) return;
    this.links.forEach((link, i) => { link.href = hub + this.paths[i]; });
  }

  /** The chapter that the reader comes from stands first. */
  mark(chapter) {
    const link = this.links.find((one) => one.dataset.chapter === chapter);
    if (!link) return;
    link.setAttribute("aria-current", "true");
    this.list.prepend(link.closest("li"));
  }
}

if (!customElements.get("tw-hub")) customElements.define("tw-hub", Hub);
