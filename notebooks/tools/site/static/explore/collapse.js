// The collapse explorer: one method on one network, a line a layer, and where all methods end.
{
  const names = Object.keys(METHODS);
  const here = trajectories(show);
  const method = byId("method");
  for (const name of names) method.add(new Option(label(name), name));
  method.value = "magnitude";
  method.addEventListener("input", here.update);

  function show(network, stop) {
    const { kept } = here.state(method.value);
    const { lives } = network.methods[method.value];
    byId("layers").style.setProperty("--method", METHODS[method.value].color);
    byId("layers").tBodies[0].innerHTML = network.layers.map(([name, size], l) => {
      const share = kept[l] / size;
      return `<tr class="${kept[l] ? "" : "empty"}"><th scope="row">${l + 1}
        <small>${name}</small></th>
        <td><div class="bar"><i style="width: ${barLength(share, network)}%"></i></div></td>
        <td>${kept[l] ? grouped(kept[l]) : "×&nbsp;empty"}<small> of ${grouped(size)}</small></td>
        <td>${short(lives[l])}</td></tr>`;
    }).join("");
    byId("critical").innerHTML = names.map((name) => critical(name, network, stop)).join("");
    byId("summary").textContent = summary(network, stop);
  }

  // Where a method ends by each criterion, on a logarithmic track that ends at rho_max by path.
  function critical(name, network, stop) {
    const end = Math.log10(network.limit.path) * 1.03;
    const at = (value) => `left: ${((100 * Math.log10(value)) / end).toFixed(2)}%`;
    const { layer, path } = network.methods[name].critical;
    const told = layer === path ? short(layer) : `${short(layer)} by layer, ${short(path)} by path`;
    return `<li style="--method: ${METHODS[name].color}"
      ${name === method.value ? 'aria-current="true"' : ""}><span>${label(name)}: ${told}</span>
      <div class="track" aria-hidden="true"><i style="${at(network.stops[stop])}"></i>
      <u style="${at(network.limit.layer)}"></u>
      <s style="${at(path)}">${marker(name, true)}</s><s style="${at(layer)}">${marker(name)}</s>
      </div></li>`;
  }

  function summary(network, stop) {
    const { kept, empty, path } = here.state(method.value);
    const total = network.layers.reduce((all, [, size]) => all + size, 0);
    const count = kept.reduce((all, one) => all + one, 0);
    const gone = kept.flatMap((n, l) => (n ? [] : [l + 1]));
    const layers = empty ? `Empty: layer${empty > 1 ? "s" : ""} ${listed(gone)}.`
      : "No layer is empty.";
    return `${network.label}, ${label(method.value)}, compression ${short(network.stops[stop])}: `
      + `${grouped(count)} of ${grouped(total)} weights are kept. ${layers} `
      + `${path ? "A path leads" : "No path leads"} from input to output. `
      + `Largest possible compression: ${short(network.limit.layer)} with a weight in every layer`
      + `${network.limit.path > network.limit.layer * 1.01
        ? `, ${short(network.limit.path)} with a path` : ""}.`;
  }

  lookFor([
    () => {
      const now = here.state(method.value);
      const last = here.shown().stops.length - 1;
      const dies = here.stop() < last && here.state(method.value, here.stop() + 1).empty;
      return [Boolean(!now.empty && dies), now.empty ? "A layer is empty already: go back."
        : dies ? `One stop further a layer is empty; exactly, it happens beyond ${
          short(here.shown().methods[method.value].critical.layer)}.`
          : "No layer is empty here, nor at the next stop."];
    },
    () => {
      const { empty, path } = here.state(method.value);
      return [Boolean(empty && path), empty && path
        ? "Shortcuts without weights carry the signal past the empty layers."
        : empty ? "Layers are empty, and the path is lost with them." : "No layer is empty."];
    },
    () => {
      const { kept, path } = here.state(method.value);
      const one = kept.every((count) => count === 1);
      return [one && path, one ? "One weight a layer, and they meet: nothing more can go."
        : `The fullest layer has ${plural(Math.max(...kept), "weight")}, the emptiest ${
          Math.min(...kept)}.`];
    },
  ]);
  here.choose();
}
