"""Where the weights lie: whole in every process, or in shards; and in which precision."""
