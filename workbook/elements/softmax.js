import { BLUE, define, Explorer, s, softmax } from "./base.js";

// What temperature and mask do to the softmax of a few scores. Data: keys, and a score for each.
class SoftmaxExplorer extends Explorer {
  static heading = "Temperature and mask";

  static style = `
    .bar { fill: ${BLUE}; }
    .before { fill: none; stroke: currentColor; stroke-dasharray: 3 3; stroke-opacity: 0.7; }
    .ground { stroke: currentColor; stroke-opacity: 0.6; }
    text { text-anchor: middle; }
    text.weight, text.key { font-weight: 600; }
    text.row { text-anchor: start; }
  `;

  start() {
    this.temperature = this.slider("temperature", {
      min: -1, max: 1, step: 0.05, value: 0, power: true, format: (x) => x.toFixed(2),
    });
    this.allowed = this.boxes("may attend to", this.data.keys);
  }

  draw() {
    const { keys, scores } = this.data;
    // As it is shown, so that the numbers can be checked by hand.
    const temperature = Number(this.temperature.read().toFixed(2));
    const allowed = this.allowed.read();
    const divided = scores.map((score, i) => (allowed[i] ? score / temperature : -Infinity));
    const weights = softmax(divided);
    const words = tell(keys, weights, allowed, temperature);

    const width = Math.min(this.room, 620);
    const [top, tall, left] = [24, 190, 74];
    const step = (width - left) / keys.length;
    const thick = Math.min(64, step * 0.62);
    const plain = softmax(scores);
    const ground = top + tall;
    const bar = (i, weight, name) => s("rect", {
      class: name, x: left + step * (i + 0.5) - thick / 2, width: thick,
      y: ground - tall * weight, height: tall * weight,
    });
    const lines = [
      ["key", "key", keys],
      ["score", "", scores.map(short)],
      [`÷ ${temperature.toFixed(2)}`, "", divided.map(short)],
    ];
    this.picture(width, ground + 102, words,
      s("line", { class: "ground", x1: left, x2: width, y1: ground + 0.5, y2: ground + 0.5 }),
      keys.map((_, i) => [
        bar(i, weights[i], "bar"),
        bar(i, plain[i], "before"),
        s("text", {
          class: "weight", x: left + step * (i + 0.5),
          y: ground - tall * Math.max(weights[i], plain[i]) - 7,
        }, share(weights[i])),
      ]),
      lines.map(([name, kind, texts], row) => [
        s("text", { class: "row", x: 0, y: ground + 20 + 22 * row }, name),
        texts.map((text, i) => s("text", {
          class: kind, x: left + step * (i + 0.5), y: ground + 20 + 22 * row,
        }, text)),
      ]),
      s("text", { class: "row", x: 0, y: top + 8 }, "weight"),
      s("line", { class: "before", x1: 0, x2: 30, y1: ground + 88, y2: ground + 88 }),
      s("text", { class: "row", x: 38, y: ground + 92 }, "at temperature 1, nothing barred"),
    );
    return words;
  }
}

/** A weight in three digits. Only what is exactly 0 is written as 0. */
function share(weight) {
  if (weight === 0) return "0";
  return weight < 0.0005 ? "< 0.001" : weight.toFixed(3);
}

/** A score without digits that say nothing. */
function short(score) {
  if (score === -Infinity) return "−∞";
  return String(Number(score.toFixed(2))).replace("-", "−");
}

function tell(keys, weights, allowed, temperature) {
  const barred = keys.filter((_, i) => !allowed[i]);
  if (barred.length === keys.length) {
    return "Every key is barred. The formula would give 0 divided by 0; here all weights are 0.";
  }
  const list = keys.map((key, i) => `${key} ${share(weights[i])}`).join(", ");
  const mask = barred.length
    ? ` Exactly 0, since barred: ${barred.join(", ")}. The others share the 1.`
    : "";
  return `Weights at temperature ${temperature.toFixed(2)}: ${list}.${mask}`;
}

define("tw-softmax", SoftmaxExplorer);
