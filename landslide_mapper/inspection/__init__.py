"""What can be said of scenes, label layers, datasets, runs and models."""
