"""The question of Yue et al. (2024), about one picture.

module        asks                                                                  question
label_names   which things do its labels, and its caption, name in which order?     named_things
"""
