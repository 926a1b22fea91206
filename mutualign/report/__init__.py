"""Reports: one HTML page for a run or a comparison, made from run folders only."""
