"""Ground floor: errors, configs, paths, seeds, device policy, console. Imports nothing of tickwise."""
