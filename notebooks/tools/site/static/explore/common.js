// What the pages share. Scripts, not modules: a page read from a disk may not load modules.

// As in the figures of the notebooks; a test compares them.
const METHODS = {
  random: { label: "Random", color: "#949494", marker: "o" },
  magnitude: { label: "Magnitude", color: "#0173b2", marker: "s" },
  snip: { label: "SNIP", color: "#029e73", marker: "^" },
  grasp: { label: "GraSP", color: "#cc78bc", marker: "v" },
  synflow: { label: "SynFlow", color: "#d55e00", marker: "D" },
};
const SHAPES = {
  o: "M-5.5 0a5.5 5.5 0 1 0 11 0a5.5 5.5 0 1 0-11 0z", s: "M-5-5h10v10h-10z",
  "^": "M0-6l6 11h-12z", v: "M0 6l-6-11h12z", D: "M0-7l6 7-6 7-6-7z",
};

const byId = (id) => document.getElementById(id);
const label = (method) => METHODS[method].label;
const grouped = (number) => number.toLocaleString("en-US");
const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
const listed = (words) => words.join(", ").replace(/, ([^,]*)$/, " and $1");
// Three digits of a compression: 4.64, 316, 10,000.
const short = (value) => grouped(Number(value.toPrecision(3)));

const marker = (method, hollow = false) =>
  `<svg class="marker${hollow ? " hollow" : ""}" viewBox="-8 -8 16 16" aria-hidden="true">` +
  `<path d="${SHAPES[METHODS[method].marker]}"/></svg>`;

// The length of a bar in percent: logarithmic, from the share of one weight of the largest layer.
const decades = ({ layers }) => Math.ceil(Math.log10(Math.max(...layers.map(([, size]) => size))));
const barLength = (share, network) =>
  (share && Math.max(2, 100 * (1 + Math.log10(share) / decades(network)))).toFixed(1);

// For each thing to look for a button that asks, and an answer beside it. A check returns whether
// it is seen in what the page shows now, and a sentence that says so or why not.
function lookFor(checks) {
  const found = new Set();
  document.querySelectorAll("#tasks li").forEach((item, number) => {
    const button = document.createElement("button");
    const answer = document.createElement("span");
    button.type = "button";
    button.textContent = "Is it here?";
    button.setAttribute("aria-label", `Is it here? Thing ${number + 1} to look for`);
    answer.setAttribute("role", "status");
    item.append(" ", button, " ", answer);
    button.addEventListener("click", () => {
      const [seen, told] = checks[number]();
      if (seen) found.add(number);
      item.classList.toggle("found", found.has(number));
      answer.textContent = `${seen ? "Found." : "Not here."} ${told}`;
      byId("score").textContent = `${found.size} of ${checks.length} found.`;
    });
  });
  byId("score").textContent = `0 of ${checks.length} found.`;
}

// A network and a stop of the slider, as the race and the collapse explorer show them.
function trajectories(show) {
  const [network, slider] = [byId("network"), byId("compression")];
  for (const [name, { label }] of Object.entries(TRAJECTORIES)) network.add(new Option(label, name));
  const shown = () => TRAJECTORIES[network.value];
  // Of one method at one stop: empty layers, a path or none, and both in words.
  const state = (method, stop = Number(slider.value)) => {
    const { kept, connected } = shown().methods[method];
    const empty = kept[stop].filter((count) => !count).length;
    const path = Boolean(connected[stop]);
    const whole = path && !empty;
    const layers = empty ? `${plural(empty, "layer")} empty` : "no layer empty";
    const words = whole ? "whole" : `${layers}, ${path ? "but a path is left" : "no path left"}`;
    return { kept: kept[stop], empty, path, whole, words };
  };
  const update = () => {
    const stop = Number(slider.value);
    const told = `compression ${short(shown().stops[stop])}`;
    slider.setAttribute("aria-valuetext", told);
    byId("stop").textContent = told;
    show(shown(), stop);
  };
  const choose = () => {
    // Another network has other stops: stay at the same part of the way.
    const share = slider.value / slider.max;
    slider.max = shown().stops.length - 1;
    slider.value = Math.round(share * slider.max);
    update();
  };
  network.addEventListener("input", choose);
  slider.addEventListener("input", update);
  const move = (stop) => {
    slider.value = stop;
    update();
  };
  return { shown, state, update, choose, move, stop: () => Number(slider.value) };
}
