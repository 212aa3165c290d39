"""The question of Verma et al. (2024), about one picture.

module        asks                                                              question
mean_places   what are its mean vectors before and behind the projection?       mean_vectors
"""
