"""Building blocks that every Transformer family imports: norm, rotary positions, attention, feed-forward.

Shape legend used in this room: B batch, T new tokens, S all tokens (cached and new), H heads,
K key-value heads, D head width, C model width, F feed-forward width, V vocabulary.
"""
