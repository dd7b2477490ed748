"""Whether one server answers like another: recorded requests, replayed, compared by meaning, told as a verdict."""
