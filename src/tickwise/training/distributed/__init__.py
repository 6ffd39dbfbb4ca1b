"""Training by several ranks, on ``torch.distributed``: who takes part (``ranks``), who holds what (``replicated``,
``sharded``), checkpoints of shares (``shards``), starting all of it (``launch``), what it sends (``traffic``)."""
