"""Whether chains are long enough: convergence by length, effective sample size and R-hat."""
