// The race: five methods lose weights together, a panel each.
{
  const names = Object.keys(METHODS);
  const here = trajectories(show);

  function show(network, stop) {
    byId("race").innerHTML = names.map((method) => panel(method, network)).join("");
    byId("summary").textContent = summary(network, stop);
  }

  function panel(method, network) {
    const { kept, whole, path, words } = here.state(method);
    const shares = kept.map((count, l) => count / network.layers[l][1]);
    const bars = shares.map((share) =>
      (share ? `<i style="height: ${barLength(share, network)}%"></i>` : "<b>×</b>"));
    const ticks = [];
    for (let power = 0; power < decades(network); power += 2) {
      const tick = power ? `10<sup>−${power}</sup>` : "1";
      ticks.push(`<span style="top: ${(100 * power) / decades(network)}%">${tick}</span>`);
    }
    const told = shares.map((share) => (share ? `${Number((100 * share).toPrecision(2))} %` : "empty"));
    return `<div class="runner ${whole ? "" : path ? "hurt" : "collapsed"}" role="img"
      style="--method: ${METHODS[method].color}; --decades: ${decades(network)}"
      aria-label="${label(method)}: ${words}. Left by layer from the input: ${told.join(", ")}">
      <p>${marker(method)} ${label(method)}</p>
      <div class="bars">${ticks.join("")}${bars.join("")}</div>
      <p class="state">${whole ? "✓" : "✗"} ${words}</p></div>`;
  }

  function summary(network, stop) {
    const whole = names.filter((method) => here.state(method).whole);
    const rest = names.filter((method) => !whole.includes(method));
    const told = rest.map((method) => {
      const { layer, path } = network.methods[method].critical;
      const since = short(Math.min(layer, path));
      return `${label(method)}: ${here.state(method).words} (first trouble beyond ${since})`;
    });
    const first = `${network.label}, compression ${short(network.stops[stop])}: `;
    if (!rest.length) return `${first}all five methods are whole.`;
    const left = whole.length ? `${listed(whole.map(label))} still whole.` : "none is whole.";
    return `${first}${left} ${told.join("; ")}.`;
  }

  // The next stop at which anything changes for any method.
  function nextEvent() {
    const words = (stop) => names.map((method) => here.state(method, stop).words).join();
    const last = here.shown().stops.length - 1;
    let stop = here.stop();
    do stop++; while (stop < last && words(stop) === words(stop - 1));
    here.move(Math.min(stop, last));
  }

  let timer = null;
  function play(on) {
    clearInterval(timer);
    timer = null;
    if (on) {
      if (here.stop() === here.shown().stops.length - 1) here.move(0);
      timer = setInterval(() => {
        here.move(here.stop() + 1);
        if (here.stop() === here.shown().stops.length - 1) play(false);
      }, 350);
    }
    byId("play").textContent = timer ? "Pause" : "Play";
  }
  byId("play").addEventListener("click", () => play(!timer));
  byId("next").addEventListener("click", () => (play(false), nextEvent()));
  byId("compression").addEventListener("input", () => play(false));
  // Who asked for little motion moves the race by hand.
  byId("play").hidden = matchMedia("(prefers-reduced-motion: reduce)").matches;

  lookFor([
    () => {
      const whole = names.filter((method) => here.state(method).whole);
      return [whole.length === 1, `Whole: ${listed(whole.map(label)) || "none"}.`];
    },
    () => {
      const found = names.filter((m) => !here.state(m).path && !here.state(m).empty);
      return [found.length > 0, found.length
        ? `${listed(found.map(label))}: weights in every layer, and nothing passes.`
        : "No method has lost its path before a layer: look for ✗ below bars without ×."];
    },
    () => {
      const spread = (method) => {
        const shares = here.state(method).kept.map((n, l) => n / here.shown().layers[l][1]);
        return Math.max(...shares) / Math.min(...shares);
      };
      const even = here.stop() > 0 && spread("random") < 1.5;
      const uneven = spread("magnitude") > 10;
      return [even && uneven, `Magnitude's fullest layer has ${factor(spread("magnitude"))} the`
        + ` share of its emptiest, Random's ${factor(spread("random"))}.`];
    },
  ]);
  const factor = (ratio) => (ratio < Infinity ? `${short(ratio)} times` : "infinitely many times");
  here.choose();
}
