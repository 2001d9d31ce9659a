"""What must be known of a network: its weights, its graph, what every node does to a signal.

The core (scores, masks, paths, collapse, laws) asks this room, which imports nothing of the core.
Read `layers` first, the table of rules; the rest only when needed, in this order:

- `nodes`: a node's name, its inputs, which nodes are plain sums or shapes.
- `tracing`, `export`: a network's graph by torch.fx, or by torch.export where that fails.
- `network`: prunable parameters, what a compression leaves out, a private copy, the input's shape.
- `workspace`: the private copy that methods score on, with masks and batch.
- `layers`, `surrogate`, `pools`, `attention`: the table of rules, and what runs in place of an
  operation so that sums over paths come out.
- `gates`, `fixed`, `operations`: which of two signals is a gate; what the input does not reach;
  what runs in place of every node.
- `zeros`: weights that start at zero and would hide all paths through them.
- `units`, `follow`, `apart`: which unit writes to which, and how units are named while they are
  followed; where none of them can be taken out.
- `copies`, `wrappers`, `lasting`, `checked`, `draws` serve these: private copies, networks inside
  wrappers, what keeps a zero in a weight from lasting, checks of a graph, random forward passes.
"""
