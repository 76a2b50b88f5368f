"""What an execution being tracked leaves behind: code, environment, metrics, artifacts."""
