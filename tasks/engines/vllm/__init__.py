"""vLLM servers of the run's own: started, watched, restarted, and gone with everything that they took."""
