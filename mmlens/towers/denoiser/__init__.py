"""The denoiser of a diffusion model as a tower, and the pipeline that runs it step by step."""
