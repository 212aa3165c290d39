"""The two questions of Shukor and Cord (2024), each about one picture, with its summary.

module    asks                                                            question
cosines   how near are the positions of picture and words, by layer?      mean_cosines
skips     what is lost where MLPs pass the picture's positions by?        skipped_mlps
"""
