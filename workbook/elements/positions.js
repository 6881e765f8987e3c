// Two positions as hands of clocks, and their dot product. Moving both together changes nothing,
// with sinusoids alone and with rotary encoding; with sinusoids added to content it does.
import { BLUE, ORANGE, Explorer, define, s } from "./base.js";

const WAYS = ["sinusoidal: added to query and key", "rotary: query and key turned"];
const ADDED = 0;

/** Rotary encoding: pair i is turned by position · base^(−2i/d), counter-clockwise. */
function turn(vector, position, base) {
  const turned = [];
  for (let i = 0; i < vector.length; i += 2) {
    const angle = position * Math.pow(base, -i / vector.length);
    const [cos, sin, a, b] = [Math.cos(angle), Math.sin(angle), vector[i], vector[i + 1]];
    turned.push(a * cos - b * sin, a * sin + b * cos);
  }
  return turned;
}

/** What each pair of columns gives to the dot product. */
function products(left, right) {
  const parts = [];
  for (let i = 0; i < left.length; i += 2) {
    parts.push(left[i] * right[i] + left[i + 1] * right[i + 1]);
  }
  return parts;
}

const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
// Without a sign where nothing but zeros is shown.
const shown = (x) => x.toFixed(2).replace(/^-(?=0\.00$)/, "").replace("-", "−");

class Positions extends Explorer {
  static heading = "Positions as clocks";
  static style = `
    .face { fill: none; stroke: currentColor; stroke-opacity: 0.35; }
    .first { stroke: ${BLUE}; stroke-width: 3; }
    .second { stroke: ${ORANGE}; stroke-width: 2; }
    circle.first { fill: ${BLUE}; }
    rect.second { fill: ${ORANGE}; }
    .axis { stroke: currentColor; stroke-opacity: 0.35; }
    .level { stroke: currentColor; stroke-dasharray: 4 4; }
    .curve { fill: none; stroke: currentColor; stroke-width: 2; }
    svg text.small { font-size: 12px; }
  `;

  start() {
    const { table, query, key } = this.data;
    this.length = table.length;
    this.names = query ? ["query", "key"] : ["first", "second"];
    this.way = query && this.choice("encoding", WAYS, 1);
    this.position = this.slider("position", {
      min: 0, max: this.length - 1, step: 1, value: this.data.position,
    });
    const far = Math.floor(this.length / 2);
    this.distance = this.slider("distance", {
      min: -far, max: far, step: 1, value: Math.max(-far, Math.min(far, this.data.distance)),
      format: (x) => String(x).replace("-", "−"),
    });
    this.divisor = query ? Math.sqrt(query.length) : 1;
    // The longest hand fills its clock; what is added has the length 1.
    const lengths = query ? [...products(query, query), ...products(key, key)].map(Math.sqrt) : [0];
    this.longest = (way) => Math.max(...lengths) + (query && way !== ADDED ? 0 : 1);
    // One scale for all states, so that a curve that changes is a curve that changes.
    const ways = query ? [0, 1] : [undefined];
    const all = ways.flatMap((way) => this.map((p) => this.curve(p, way))).flat();
    this.range = [Math.min(...all), Math.max(...all)];
  }

  map(action) {
    return Array.from({ length: this.length }, (_, p) => action(p));
  }

  /** The vector that stands at a position: which = 0 for the first (the query), else 1. */
  at(position, which, way) {
    const { table, query, key, base } = this.data;
    if (!query) return table[position];
    const content = which ? key : query;
    if (way !== ADDED) return turn(content, position, base);
    return content.map((x, i) => x + table[position][i]);
  }

  /** The score of the first at position p with the second at each position. */
  curve(p, way) {
    const first = this.at(p, 0, way);
    return this.map((n) => sum(products(first, this.at(n, 1, way))) / this.divisor);
  }

  draw() {
    const distance = this.distance.read();
    // Both must stand within the table.
    const [low, high] = [Math.max(0, -distance), this.length - 1 - Math.max(0, distance)];
    const p = Math.min(high, Math.max(low, this.position.read()));
    this.position.input.min = low;
    this.position.input.max = high;
    this.position.set(p);

    const n = p + distance;
    const way = this.way?.read();
    const hands = [this.at(p, 0, way), this.at(n, 1, way)];
    const parts = products(...hands);
    const curve = this.curve(p, way);
    const level = this.curve(low, way)[low + distance];

    const width = this.room;
    const columns = Math.ceil(parts.length / Math.ceil(parts.length * 74 / width));
    const cell = Math.min(104, width / columns);
    const radius = Math.min(36, cell / 2 - 6);
    const top = 26 + Math.ceil(parts.length / columns) * (2 * radius + 34);
    this.picture(width, top + 206, this.alt(p, n, parts, curve[n]),
      this.legend(p, n),
      parts.map((part, i) => {
        const x = (i % columns + 0.5) * cell;
        const y = 26 + radius + Math.floor(i / columns) * (2 * radius + 34);
        const pair = hands.map((hand) => hand.slice(2 * i, 2 * i + 2));
        return s("g", { transform: `translate(${x} ${y})` },
          this.clock(pair, radius, radius / this.longest(way)),
          s("text", { class: "small product", y: radius + 18, "text-anchor": "middle" },
            shown(part)));
      }),
      s("g", { transform: `translate(0 ${top})` }, this.plot(p, n, curve, level, width)));
    return this.words(p, n, low, curve[n], level, parts.length);
  }

  legend(p, n) {
    return [p, n].map((position, which) =>
      s("g", { transform: `translate(${6 + 112 * which} 8)` }, this.tip(which, 4, 0),
        s("text", { x: 14, y: 5 }, `${this.names[which]} at ${position}`)));
  }

  /** The mark at the end of a hand: a dot for the first, a diamond for the second. */
  tip(which, x, y) {
    if (which === 0) return s("circle", { class: "first", cx: x, cy: y, r: 2.5 });
    const turned = `translate(${x} ${y}) rotate(45)`;
    return s("rect", { class: "second", x: -2.5, y: -2.5, width: 5, height: 5, transform: turned });
  }

  /** One clock: the first column of the pair points to the right, the second up. */
  clock(pair, radius, scale) {
    const hands = pair.map(([right, up], which) => {
      const [x, y] = [scale * right, -scale * up];
      const line = { class: ["first", "second"][which], x1: 0, y1: 0, x2: x, y2: y };
      return [s("line", line), this.tip(which, x, y)];
    });
    return [s("circle", { class: "face", r: radius }), ...hands.flat()];
  }

  plot(p, n, curve, level, width) {
    const [lowest, highest] = this.range;
    const x = (position) => 44 + (position / (this.length - 1)) * (width - 58);
    const y = (value) => 160 - ((value - lowest) / (highest - lowest)) * 128;
    const text = (at, height, words, anchor = "middle") =>
      s("text", { class: "small", x: at, y: height, "text-anchor": anchor }, words);
    const ticks = this.map((q) => q).filter((q) => q % (this.length > 20 ? 10 : 2) === 0);
    return [
      text(4, 16, this.data.query ? "score of the query with the key at each position" :
        "dot product of the first with each position", "start"),
      [lowest, highest].map((value) => text(38, y(value) + 4, shown(value), "end")),
      s("line", { class: "axis", x1: x(0), x2: x(this.length - 1), y1: 166, y2: 166 }),
      ticks.map((q) => text(x(q), 182, q)),
      s("line", { class: "first", x1: x(p), x2: x(p), y1: 28, y2: 166, "stroke-opacity": 0.5 }),
      s("line", { class: "level", x1: x(0), x2: x(this.length - 1), y1: y(level), y2: y(level) }),
      s("polyline", { class: "curve", points: curve.map((v, q) => `${x(q)},${y(v)}`).join(" ") }),
      s("g", { transform: `translate(${x(n)} ${y(curve[n])}) scale(1.6)` }, this.tip(1, 0, 0)),
      text(width / 2, 200, this.data.query ? "position of the key" : "other position"),
    ];
  }

  alt(p, n, parts, score) {
    return `${parts.length} clocks with two hands each: ${this.names[0]} at ${p}, ` +
      `${this.names[1]} at ${n}. Products: ${parts.map(shown).join(", ")}. ` +
      `Below, the curve of all positions; at ${n} it is ${shown(score)}.`;
  }

  words(p, n, low, score, level, pairs) {
    const what = this.data.query
      ? `Query at ${p}, key at ${n}: the ${pairs} products, summed and divided by ` +
        `√${2 * pairs}, give the score ${shown(score)}.`
      : `Positions ${p} and ${n}: the ${pairs} products sum to ${shown(score)}.`;
    if (p === low) return `${what} Now move the position: both move together.`;
    const same = shown(score) === shown(level) ? "the same" : "not the same";
    return `${what} At ${low} and ${low + n - p}, as far apart, they give ` +
      `${shown(level)} (dashed): ${same}.`;
  }
}

define("tw-positions", Positions);
