"""Pictures of the dashboard for those who have no Grafana at hand: `record` makes a run, `draw` makes SVGs of it."""
