"""Reports of measurements and comparisons: one HTML file with plots, and the statistics behind them."""
