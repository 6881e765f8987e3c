// The heads of a trained encoder–decoder: how much each token that asks reads of each key.
// Weights come as thousandths, a list for each kind: layers, heads, queries, keys, in this order.
import { BLUE, Explorer, define, h, s } from "./base.js";

const KINDS = {
  encoder: "encoder self-attention",
  decoder: "decoder masked self-attention",
  cross: "encoder–decoder attention",
};

class Heads extends Explorer {
  static heading = "Where the heads of the trained model look";
  static style = `
    .queries { display: flex; flex-wrap: wrap; gap: 0.2rem; }
    .queries legend { float: none; font-size: 0.9em; margin-bottom: 0.2rem; }
    .queries label { position: relative; cursor: pointer; }
    .queries input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0;
      opacity: 0; cursor: pointer; }
    .token { border: 1px solid color-mix(in srgb, currentColor 30%, transparent);
      border-radius: 0.3rem; font-size: 0.9rem; line-height: 1.5; padding: 0.05rem 0.4rem;
      min-width: 1.7rem; text-align: center; }
    .queries input:checked + .token { border-color: ${BLUE}; box-shadow: inset 0 0 0 1px ${BLUE}; }
    .queries input:focus-visible + .token { outline: 2px solid ${BLUE}; outline-offset: 2px; }
    .keys { display: flex; flex-wrap: wrap; gap: 0.2rem; margin: 0; padding: 0; }
    .keys .token { display: flex; flex-direction: column;
      --weight: color-mix(in srgb, ${BLUE} 50%, transparent); }
    .keys small { font-size: 0.75rem; font-variant-numeric: tabular-nums; }
    .keys .barred { border-style: dashed; }
    .view > p { font-size: 0.9rem; margin: 0 0 0.2rem; }
    svg { margin-top: 0.9rem; }
    svg text { font-size: 12px; }
    .cell { fill: ${BLUE}; }
    .grid { fill: none; stroke: currentColor; stroke-opacity: 0.18; }
    .row { fill: none; stroke: ${BLUE}; stroke-width: 2; }
    .future { stroke: currentColor; stroke-opacity: 0.18; }
    .catch { fill: transparent; cursor: pointer; }
    text.chosen { font-weight: 700; }
  `;

  start() {
    const { sentences, layers, heads } = this.data;
    const count = (n, name) => Array.from({ length: n }, (_, i) => `${name}${i + 1}`);
    this.sentence = this.choice("sentence", sentences.map((each) => each.text));
    this.kind = this.choice("attention", Object.values(KINDS), 2);
    this.layer = this.choice("layer", count(layers, ""), layers - 1);
    this.head = this.choice("head", count(heads, ""));
    this.query = 0;
    this.strip = h("fieldset", { class: "queries" });
    this.form.append(this.strip);
  }

  /** Labels of queries and keys. In the decoder, row t has read token t and writes token t + 1. */
  labels(sentence, kind) {
    const { source, target } = sentence;
    const read = ["<bos>", ...target.slice(0, -1)];
    if (kind === "encoder") return [source, source];
    return kind === "decoder" ? [read, read] : [target, source];
  }

  /** The weights of one query over all keys, from the chosen layer and head. */
  weights(sentence, kind, query) {
    const [queries, keys] = this.labels(sentence, kind).map((tokens) => tokens.length);
    const map = this.layer.read() * this.data.heads + this.head.read();
    const start = (map * queries + query) * keys;
    return sentence[kind].slice(start, start + keys).map((w) => w / 1000);
  }

  draw() {
    const sentence = this.data.sentences[this.sentence.read()];
    const kind = Object.keys(KINDS)[this.kind.read()];
    const [queries, keys] = this.labels(sentence, kind);
    this.query = Math.min(this.query, queries.length - 1);
    // Only where the tokens are others: a new button would lose the keyboard's focus.
    if (this.strip.dataset.tokens !== queries.join("\n")) this.fill(queries);
    this.strip.querySelectorAll("input")[this.query].checked = true;

    const rows = queries.map((_, query) => this.weights(sentence, kind, query));
    const future = (query, key) => kind === "decoder" && key > query;
    const asks = kind === "cross" ? "While it writes" : "Who asks";
    this.strip.firstChild.textContent = `${asks}:`;
    this.picture(...this.map(queries, keys, rows, future));
    this.view.prepend(
      h("p", {}, "What it reads:"),
      this.tokens(keys, rows[this.query], (key) => future(this.query, key)),
    );
    return this.words(kind, queries, keys, rows[this.query]);
  }

  fill(queries) {
    this.strip.dataset.tokens = queries.join("\n");
    const choose = (i) => () => { this.query = i; this.redraw(); };
    this.strip.replaceChildren(h("legend"), ...queries.map((token, i) =>
      h("label", { onpointerenter: choose(i) },
        h("input", { type: "radio", name: "query", "aria-label": `${token}, ${i + 1}`,
          onchange: choose(i) }),
        h("span", { class: "token", "aria-hidden": "true" }, token))));
  }

  tokens(keys, weights, barred) {
    // A token is filled as far as its weight: length tells more than a shade of blue.
    const filled = (weight) => "background-image: linear-gradient(to right, " +
      `var(--weight) ${100 * weight}%, transparent ${100 * weight}%)`;
    return h("div", { class: "keys", "aria-hidden": "true" }, keys.map((token, i) =>
      h("span", { class: barred(i) ? "token barred" : "token", style: filled(weights[i]) },
        token, h("small", {}, barred(i) ? "barred" : weights[i].toFixed(2)))));
  }

  /** Width, height, text alternative and parts of the map: a row per query, a column per key. */
  map(queries, keys, rows, future) {
    const longest = (tokens) => 8 + 7 * Math.max(...tokens.map((token) => token.length));
    const [left, top] = [longest(queries), longest(keys)];
    const side = Math.max(11, Math.min(26, (this.room - left - 2) / keys.length));
    const [width, height] = [side * keys.length, side * queries.length];
    const cells = rows.flatMap((weights, q) => weights.map((weight, k) => {
      const [x, y] = [left + k * side, top + q * side];
      if (!future(q, k)) {
        return weight < 0.005 ? null : s("rect", {
          class: "cell", x, y, width: side, height: side, "fill-opacity": weight,
        });
      }
      const line = { class: "future", x1: x, x2: x + side, y1: y + side, y2: y };
      return s("line", line);
    }));
    const lines = [
      ...keys.concat("").map((_, k) => `M${left + k * side} ${top}v${height}`),
      ...queries.concat("").map((_, q) => `M${left} ${top + q * side}h${width}`),
    ];
    const label = (token, x, y, chosen, turn) => s("text", {
      x, y, "text-anchor": turn ? "start" : "end", class: chosen && "chosen",
      transform: turn && `rotate(-90 ${x} ${y})`,
    }, token);
    const choose = (q) => () => { if (q !== this.query) { this.query = q; this.redraw(); } };
    const strongest = rows[this.query].indexOf(Math.max(...rows[this.query]));
    const told = rows.map((weights, q) =>
      `${queries[q]} reads ${keys[weights.indexOf(Math.max(...weights))]}`);
    return [
      left + width + 2, top + height + 2,
      `Map of weights, a row per query. Largest weight of each: ${told.join("; ")}.`,
      cells, s("path", { class: "grid", d: lines.join("") }),
      keys.map((token, k) =>
        label(token, left + (k + 0.5) * side + 4, top - 5, k === strongest, true)),
      queries.map((token, q) =>
        label(token, left - 5, top + (q + 0.5) * side + 4, q === this.query)),
      s("rect", { class: "row", x: left, y: top + this.query * side, width, height: side }),
      queries.map((_, q) => s("rect", {
        class: "catch", x: 0, y: top + q * side, width: left + width, height: side,
        onpointerenter: choose(q),
      })),
    ];
  }

  words(kind, queries, keys, weights) {
    const order = weights.map((_, i) => i).sort((a, b) => weights[b] - weights[a]);
    const most = order.slice(0, 3).filter((i) => weights[i] >= 0.005)
      .map((i) => `“${keys[i]}” (${i + 1}) ${weights[i].toFixed(2)}`);
    const token = `“${queries[this.query]}” (token ${this.query + 1})`;
    const head = `head ${this.head.read() + 1} of layer ${this.layer.read() + 1}`;
    return `${kind === "cross" ? `To write ${token},` : `For ${token},`} ${head} reads ` +
      `${most.join(", ")}.${kind === "decoder" ? " What is later is barred." : ""}`;
  }
}

define("tw-heads", Heads);
