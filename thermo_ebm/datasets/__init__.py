"""Where images come from: one module a kind of source, opened through `thermo_ebm.data.load`."""
