// SynFlow on a chain of layers in plain numbers. No page, no picture: drawn.js shows it.
// A weight matrix is an array of rows, one row an output: weights[l][i][j] leads from unit j to i.

const zip = (a, b, f) => a.map((x, i) => f(x, b[i]));
const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
const times = (matrix, vector) => matrix.map((row) => sum(zip(row, vector, (w, x) => w * x)));
const turned = (matrix) => matrix[0].map((_, j) => matrix.map((row) => row[j]));

// The same numbers for the same seed (mulberry32), two of them made normal (Box and Muller).
function randomNormal(seed) {
  const uniform = () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

// Kaiming's initialization: the deviation of a weight is sqrt(2 / inputs of its layer).
function network(sizes, seed) {
  const normal = randomNormal(seed);
  return sizes.slice(1).map((outputs, l) =>
    Array.from({ length: outputs }, () =>
      Array.from({ length: sizes[l] }, () => normal() * Math.sqrt(2 / sizes[l]))));
}

// R, the sum over all paths of the product of |w| along them, by one pass of ones; and of every
// weight the share of R that runs through it: what arrives, times |w|, times what leads on from it.
function synflow(weights) {
  const size = weights.map((matrix) => matrix.map((row) => row.map(Math.abs)));
  const arrives = [weights[0][0].map(() => 1)];
  size.forEach((matrix, l) => arrives.push(times(matrix, arrives[l])));
  const leaves = [arrives.at(-1).map(() => 1)];
  size.toReversed().forEach((matrix) => leaves.unshift(times(turned(matrix), leaves[0])));
  return {
    R: sum(arrives.at(-1)),
    scores: size.map((matrix, l) =>
      matrix.map((row, i) => row.map((w, j) => leaves[l + 1][i] * w * arrives[l][j]))),
    units: arrives.map((values, l) => zip(values, leaves[l], (a, b) => a * b)),
  };
}

const magnitude = (weights) => weights.map((matrix) => matrix.map((row) => row.map(Math.abs)));
const cuts = (scores) => scores.map((matrix) => sum(matrix.flat()));
const masked = (weights, mask) =>
  zip(weights, mask, (w, m) => zip(w, m, (row, on) => zip(row, on, (x, kept) => x * kept)));

// Places [layer, output, input] of what is kept, in the order in which it goes: smallest score
// first. Scores that differ by rounding alone are equal, and of equal ones the last goes first.
function removalOrder(scores, mask, within = 1e-12) {
  const places = [];
  scores.forEach((matrix, l) => matrix.forEach((row, i) => row.forEach((score, j) => {
    if (mask[l][i][j]) places.push({ score, at: [l, i, j], index: places.length });
  })));
  places.sort((a, b) => a.score - b.score || b.index - a.index);
  let group = 0;
  places.forEach((place, n) => {
    const before = n ? places[n - 1].score : place.score;
    if (place.score - before > within * place.score) group++;
    place.group = group;
  });
  return places.sort((a, b) => a.group - b.group || b.index - a.index).map(({ at }) => at);
}

// One weight goes at a time. "synflow" scores what is left before each, the others score once.
class Pruning {
  constructor(sizes, method, seed) {
    this.method = method;
    this.weights = network(sizes, seed);
    this.mask = this.weights.map((matrix) => matrix.map((row) => row.map(() => 1)));
    this.total = sum(this.kept());
    this.first = method === "magnitude" ? magnitude(this.weights) : synflow(this.weights).scores;
    this.look();
  }

  kept() {
    return this.mask.map((matrix) => sum(matrix.flat()));
  }

  look() {
    const flow = synflow(masked(this.weights, this.mask));
    this.R = flow.R;
    this.units = flow.units;
    this.flows = flow.scores; // whether a weight lies on a path, whatever the method scores
    this.scores = this.method === "synflow" ? flow.scores : masked(this.first, this.mask);
    this.cuts = cuts(this.scores);
    this.order = removalOrder(this.scores, this.mask);
    this.left = this.order.length;
    this.ended = this.left <= this.weights.length; // one weight a layer: rho_max
    this.next = this.ended ? null : this.order[0];
  }

  step() {
    if (this.ended) return;
    const [l, i, j] = this.next;
    this.mask[l][i][j] = 0;
    this.look();
  }
}
