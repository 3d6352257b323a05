"""Many runs: the only importer of ray and optuna."""
