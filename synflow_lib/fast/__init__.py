"""The same answers sooner: selection, maps without repeating rows, fused and cut-out layers."""
