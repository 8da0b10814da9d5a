"""How a study is computed: schedule, workers, pools, processes, clusters."""
