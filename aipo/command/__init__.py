"""The command `aipo`: everything that can be asked of a checkout or an installed package, under one name."""
