"""The miniature: a small world with computable answer quality, offline, on two CPU cores, in minutes."""
