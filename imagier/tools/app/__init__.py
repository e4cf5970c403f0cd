"""`imagier demo --gradio`: a Gradio app of a trained generator, for all methods."""
