"""Reports: one HTML page of a run or of a comparison, made from run folders only."""
