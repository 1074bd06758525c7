"""What a run tells those who watch it from elsewhere: records with the ids of what they are about, and figures."""
