"""Parts of a model that have hook points, wrapped and measured: language models, encoders."""
