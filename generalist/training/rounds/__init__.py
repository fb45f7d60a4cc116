"""What happens between steps: corrections by the experts, and scores on the way."""
