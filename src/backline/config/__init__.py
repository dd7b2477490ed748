"""Settings: one frozen tree; flags over environment over file over default. Nothing else reads the environment."""
