"""Training by several ranks, on ``torch.distributed``: who takes part (``ranks``) and who still lives (``pulse``), who
holds what (``replicated``, ``sharded``), checkpoints of shares (``shards``), starting all of it (``launch``), what it
holds and sends (``traffic``)."""
