"""Studies of how networks learn and are tested: units, first weights, losses, regularisers."""
