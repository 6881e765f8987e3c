import { BLUE, Explorer, ORANGE, define, h, softmax } from "./base.js";

// The next token of a real model: its logits, temperature, top-k and top-p in that order, and
// draws from what is left. Outlines are the model's own probabilities, bars those of the settings.

const DRAWS = 20;

/** Positions of the logits, the largest first; among equals the lower id comes first. */
function ranked(logits) {
  return logits.map((_, id) => id).sort((a, b) => logits[b] - logits[a] || a - b);
}

/** Chapter 6's filter_logits for logits in falling order, where each step keeps a beginning.
 *
 *  `even`: probabilities after temperature; `byK`, `byP`: how many tokens each step keeps;
 *  `final`: the probabilities of these, summing to 1. A setting of null cuts nothing. */
function filter(sorted, temperature, topK, topP) {
  const scaled = sorted.map((logit) => logit / temperature);
  let byK = scaled.length;
  if (topK !== null && topK < byK) {
    // All that equal the k-th stay.
    while (scaled[byK - 1] < scaled[topK - 1]) byK -= 1;
  }
  let byP = byK;
  if (topP !== null && topP < 1) {
    const probabilities = softmax(scaled.slice(0, byK));
    let before = 0;
    // The token that crosses stays: asked is the sum of those before it.
    for (byP = 0; byP < byK && before < topP; byP += 1) before += probabilities[byP];
  }
  return { even: softmax(scaled), byK, byP, final: softmax(scaled.slice(0, byP)) };
}

/** A source of numbers from 0 to 1 that is the same each time (mulberry32). */
function seeded(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Which of the probabilities a roll of the dice falls on. */
function pick(probabilities, roll) {
  let reached = 0;
  for (let i = 0; i < probabilities.length; i += 1) {
    reached += probabilities[i];
    if (roll < reached) return i;
  }
  return probabilities.length - 1;
}

function sum(numbers) {
  return numbers.reduce((a, b) => a + b, 0);
}

/** A share in percent. What is not quite nothing, or all, does not look so. */
function percent(share) {
  if (share > 0 && share < 0.0005) return "< 0.1%";
  if (share < 1 - 1e-9 && share >= 0.9995) return "> 99.9%";
  return `${(100 * share).toFixed(1)}%`;
}

/** A cell with a bar: an outline, what fills it, and below it a line for the draws. */
function bar(outline, filled, drawn, words) {
  const part = (name, share) =>
    share > 0 ? h("i", { class: name, style: `width: ${100 * share}%` }) : null;
  return h("td", { class: "bar" }, h("div", {},
    part("now", filled), part("was", outline), part("draws", drawn),
    h("span", { class: "unseen" }, words)));
}

class Sampling extends Explorer {
  static heading = "The next token: temperature, top-k, top-p";
  static style = `
    table { border-collapse: collapse; font-size: 0.85em; font-variant-numeric: tabular-nums;
      margin: 0 0 0.75rem; max-width: 44rem; width: 100%; }
    th, td { font-weight: normal; line-height: 1.3rem; padding: 0 0 0 0.75rem; text-align: right;
      white-space: nowrap; }
    thead th { padding-bottom: 0.2rem; vertical-align: bottom; }
    th:first-child { padding-left: 0; padding-right: 0.6rem; }
    .tokens tbody th { font-family: ui-monospace, monospace; }
    .steps th { text-align: left; }
    .steps thead th:nth-child(n + 3) { text-align: right; }
    .bar { padding: 0; width: 100%; }
    thead .bar { text-align: left; }
    caption { padding-bottom: 0.3rem; text-align: left; }
    .bar div { height: 0.95rem; position: relative; }
    .bar div i { bottom: 0; left: 0; position: absolute; top: 0; }
    .bar div .draws { height: 5px; top: auto; }
    .now { background: ${BLUE}; }
    .was { border: 1px solid color-mix(in srgb, currentColor 65%, transparent); }
    .draws { background: ${ORANGE}; }
    .key { align-items: center; display: inline-flex; margin-right: 0.9em; vertical-align: top; }
    .key i { height: 0.8em; margin-right: 0.3em; width: 1em; }
    .key .draws { height: 5px; }
    .cut { color: color-mix(in srgb, currentColor 70%, transparent); }
    @media (min-width: 600px) {
      th:first-child { min-width: 7.4rem; }
      thead th:nth-child(3) { min-width: 5.5rem; }
      thead th:nth-child(4) { min-width: 3.6rem; }
    }
    .unseen { clip-path: inset(50%); height: 1px; overflow: hidden; position: absolute;
      width: 1px; }
    .drawn { font-size: 0.9em; margin: 0; min-height: 1.5em; overflow-wrap: anywhere; }
    code { font-family: ui-monospace, monospace; }
  `;

  start() {
    const { contexts, temperatures, top_k: ks, top_p: ps } = this.data;
    const list = (label, values, value, show) => {
      const slider = this.slider(label, {
        min: 0, max: values.length - 1, step: 1, value: values.indexOf(value),
        format: (i) => show(values[i]),
      });
      return () => values[slider.read()];
    };
    this.context = this.choice("text so far", contexts.map(({ text }) => text));
    this.temperature = list("temperature", temperatures, 1, (t) => String(t));
    this.topK = list("top-k", ks, null, (k) => (k === null ? "off" : String(k)));
    this.topP = list("top-p", ps, 1, (p) => (p === 1 ? "off" : p.toFixed(2)));
    this.clear();
    this.button(`draw ${DRAWS}`, () => {
      for (let i = 0; i < DRAWS; i += 1) this.rolls.push(this.roll());
    });
    this.button("clear draws", () => this.clear());
  }

  /** The rolls are kept, not the tokens: with other settings the same rolls mean other tokens. */
  clear() {
    this.roll = seeded(1);
    this.rolls = [];
  }

  draw() {
    const { text, logits } = this.data.contexts[this.context.read()];
    const order = ranked(logits);
    const sorted = order.map((id) => logits[id]);
    const names = order.map((id) => this.data.tokens[id]);
    const temperature = this.temperature();
    const left = filter(sorted, temperature, this.topK(), this.topP());
    const drawn = this.rolls.map((roll) => pick(left.final, roll));
    const latest = drawn.slice(-DRAWS).map((i) => names[i]);
    this.view.replaceChildren(
      this.steps(temperature, left),
      this.tokens(names, softmax(sorted), left, drawn),
      h("p", { class: "drawn" }, drawn.length
        ? [`the last ${latest.length} draws: `, h("code", {}, latest.join(" "))]
        : `Draw ${DRAWS} next tokens. The rolls of the dice stay when you change a setting.`),
    );
    return this.words(text, names, temperature, left, drawn);
  }

  /** What is left after each of the three steps. */
  steps(temperature, { even, byK, byP }) {
    const [topK, topP] = [this.topK(), this.topP()];
    const share = (count) => sum(even.slice(0, count));
    const row = (name, count) => h("tr", {}, h("th", { scope: "row" }, name),
      bar(1, share(count), 0, ""), h("td", {}, `${count} of ${even.length}`),
      h("td", {}, count < even.length ? percent(share(count)) : "100%"));
    return h("table", { class: "steps" }, h("caption", {}, "What each step leaves:"),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "step"),
        h("th", { scope: "col", class: "bar" }, h("span", { class: "unseen" }, "bar")),
        h("th", { scope: "col" }, "tokens"), h("th", { scope: "col" }, "share"))),
      h("tbody", {}, row(`1. temperature ${temperature}`, even.length),
        row(topK === null ? "2. top-k off" : `2. top-k ${topK}`, byK),
        row(topP === 1 ? "3. top-p off" : `3. top-p ${topP.toFixed(2)}`, byP)));
  }

  /** A row for each of the most probable tokens, and one for all others. */
  tokens(names, plain, { byP, final }, drawn) {
    const total = Math.max(drawn.length, 1);
    const row = (name, from, to) => {
      const [was, now] = [sum(plain.slice(from, to)), sum(final.slice(from, to))];
      const count = drawn.filter((i) => i >= from && i < to).length;
      const cut = from >= byP;
      return h("tr", { class: cut ? "cut" : null },
        h("th", { scope: "row" }, name),
        bar(was, now, count / total, percent(was)),
        h("td", {}, cut ? "cut" : percent(now)),
        h("td", {}, drawn.length ? String(count) : "–"));
    };
    const named = Math.min(this.data.named, names.length);
    const rows = names.slice(0, named).map((name, i) => row(name, i, i + 1));
    if (names.length > named) rows.push(row(this.others(names.length, byP), named, names.length));
    const keys = [["was", "the model's own"], ["now", "after the steps"], ["draws", "drawn"]];
    return h("table", { class: "tokens" },
      h("caption", {}, keys.map(([name, words]) =>
        h("span", { class: "key" }, h("i", { class: name }), words))),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "token"),
        h("th", { scope: "col", class: "bar" }, h("span", { class: "unseen" }, "before")),
        h("th", { scope: "col" }, "probability"), h("th", { scope: "col" }, "drawn"))),
      h("tbody", {}, rows));
  }

  others(count, byP) {
    const rest = count - this.data.named;
    const kept = byP - this.data.named;
    return kept > 0 && kept < rest ? `${kept} of ${rest} others` : `${rest} others`;
  }

  words(text, names, temperature, { even, byP, final }, drawn) {
    const [topK, topP] = [this.topK(), this.topP()];
    const settings = [`temperature ${temperature}`, topK === null ? "no top-k" : `top-k ${topK}`,
      topP === 1 ? "no top-p" : `top-p ${topP.toFixed(2)}`];
    const first = final.slice(0, 5).map((p, i) => `${names[i]} ${percent(p)}`);
    let told = `After “${text}” with ${settings.join(", ")}: `;
    told += byP < names.length
      ? `${byP} of ${names.length} tokens are kept, which had ` +
        `${percent(sum(even.slice(0, byP)))} of the probability at this temperature. `
      : `all ${names.length} tokens are kept. `;
    told += `Most probable: ${first.join(", ")}.`;
    if (!drawn.length) return told;
    const counts = new Map();
    for (const i of drawn) counts.set(i, (counts.get(i) ?? 0) + 1);
    const most = [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, 5);
    return `${told} ${drawn.length} draws: ` +
      `${most.map(([i, count]) => `${names[i]} ${count}`).join(", ")}` +
      `${counts.size > 5 ? ", and others" : ""}.`;
  }
}

define("tw-sampling", Sampling);
