"""The question of the study of dictionaries, about one picture.

module    asks                                                       question
peaks     how strongly does every unit answer, at most, to it?       unit_peaks
"""
