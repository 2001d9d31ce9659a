// A drawn network that is pruned one weight at a time, by the arithmetic of flow.js.
{
  const SIZES = [3, 6, 6, 2];
  const [WIDTH, HEIGHT] = [420, 270];
  const WORDS = {
    magnitude: "Magnitude", once: "SynFlow scored once", synflow: "SynFlow scored at each step",
  };
  const method = byId("method");
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  let [seed, steps, run, timer] = [1, 0, null, null];

  const place = (layer, unit) => [
    25 + (layer * (WIDTH - 50)) / (SIZES.length - 1),
    ((unit + 0.5) * 225) / SIZES[layer] + 5,
  ];
  const digits = (value) => (value ? Number(value.toPrecision(3)).toString() : "0");
  const named = ([l, i, j]) => `layer ${l + 1}, from unit ${j + 1} to unit ${i + 1}`;
  const each = (visit) => run.weights.flatMap((matrix, l) =>
    matrix.flatMap((row, i) => row.map((w, j) => visit([l, i, j], w))));
  const pick = (values, [l, i, j]) => values[l][i][j];
  const equal = () => Math.max(...run.cuts) - Math.min(...run.cuts) <= 1e-9 * Math.max(...run.cuts);

  function restart() {
    stop();
    run = new Pruning(SIZES, method.value, seed);
    steps = 0;
    show();
  }

  function step() {
    if (!run.ended) steps++;
    run.step();
    show();
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    byId("run").textContent = "Run";
    byId("summary").removeAttribute("aria-busy");
  }

  // To the end, or to where the network falls apart.
  function start() {
    const goes = () => !run.ended && run.R > 0;
    if (calm) {
      while (goes()) step();
    } else {
      byId("run").textContent = "Pause";
      byId("summary").setAttribute("aria-busy", "true"); // read out when it stands still
      timer = setInterval(() => (goes() ? step() : (stop(), show())), 150);
    }
  }

  function show() {
    byId("network").innerHTML = drawing();
    byId("network").setAttribute("aria-label", `The network: ${run.left} weights as lines between `
      + `${SIZES.reduce((a, b) => a + b)} units in ${SIZES.length} columns.`);
    document.querySelector(".drawn").classList.toggle("collapsed", !run.R);
    const most = Math.max(...run.scores.flat(2)) || 1;
    const tall = (at) => Math.max(2, (100 * pick(run.scores, at)) / most).toFixed(1);
    byId("scores").innerHTML = run.order
      .map((at, n) => `<i class="${n || run.ended ? "" : "next"}" style="height: ${tall(at)}%"></i>`)
      .join("");
    byId("table").tBodies[0].innerHTML = run.order.map((at) =>
      `<tr><td>${named(at)}</td><td>${digits(Math.abs(pick(run.weights, at)))}</td>
      <td>${digits(pick(run.scores, at))}</td></tr>`).join("");
    byId("summary").textContent = summary();
  }

  function drawing() {
    const widest = Math.max(...run.weights.flat(2).map(Math.abs));
    const line = (at, w) => {
      const [l, i, j] = at;
      const [[x1, y1], [x2, y2]] = [place(l, j), place(l + 1, i)];
      const next = run.next && named(run.next) === named(at);
      const look = next ? "next" : !pick(run.mask, at) ? "gone" : pick(run.flows, at) ? "" : "dead";
      const ends = `x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}"`;
      const width = (0.6 + (4.4 * Math.abs(w)) / widest).toFixed(2);
      const halo = next ? `<line class="halo" ${ends}/>` : "";
      return `${halo}<line class="${look}" ${ends} stroke-width="${width}"><title>${named(at)}: weight
        ${digits(w)}, score ${digits(pick(run.scores, at))}</title></line>`;
    };
    const unit = (flow, layer, i) => {
      const [x, y] = place(layer, i);
      const radius = run.R ? 4 + 9 * Math.sqrt(flow / run.R) : 4;
      return `<circle class="${flow ? "" : "dead"}" cx="${x}" cy="${y}" r="${radius.toFixed(2)}"/>`;
    };
    const kept = run.kept();
    const under = run.cuts.map((cut, l) => {
      const x = (place(l, 0)[0] + place(l + 1, 0)[0]) / 2;
      return `<text x="${x}" y="248">sum ${digits(cut)}</text>
        <text x="${x}" y="264">${plural(kept[l], "weight")}</text>`;
    });
    const units = run.units.flatMap((flows, layer) => flows.map((flow, i) => unit(flow, layer, i)));
    return [...each(line), ...units, ...under].join("");
  }

  function summary() {
    const sums = listed(run.cuts.map(digits));
    const goes = run.ended ? "As many weights as layers: the end."
      : `Next to go: ${named(run.next)}, score ${digits(pick(run.scores, run.next))}.`;
    return `${WORDS[run.method]}, step ${steps}: ${run.left} of ${run.total} weights left, `
      + `compression ${digits(run.total / run.left)}. Scores of the layers sum to ${sums}: `
      + `${equal() ? "equal" : "not equal"}. ${run.R ? `R = ${digits(run.R)}, a path is left.`
        : "R = 0: input and output are disconnected."} ${goes}`;
  }

  byId("step").addEventListener("click", () => (stop(), step()));
  byId("run").addEventListener("click", () => (timer ? stop() : start()));
  byId("reset").addEventListener("click", restart);
  byId("seed").addEventListener("click", () => (seed++, restart()));
  method.addEventListener("input", restart);

  lookFor([
    () => [!equal(), `The layers' scores sum to ${listed(run.cuts.map(digits))}.`],
    () => {
      const kept = run.kept();
      return [!run.R && kept.every(Boolean), run.R ? "A path is left."
        : kept.every(Boolean) ? "Every layer has weights, but they do not meet."
          : "It is disconnected, but a layer is empty as well; another seed may not be."];
    },
    () => {
      const kept = run.kept();
      return [Boolean(run.R) && kept.every((count) => count === 1), run.ended
        ? `Weights left by layer: ${listed(kept)}.${run.R ? " They carry all of R." : ""}`
        : `${run.left} weights are left; the fewest that can carry a path are ${kept.length}.`];
    },
  ]);
  restart();
}
