"""The question about maps of relevance, asked of one picture, with its summary.

module       asks                                                        question
map_scores   how good is the map of each method, by mask and by model?   judged_maps
"""
