"""How a labelled set is made: plans, shards, engines."""
