"""The questions of the study, each with its summary.

module       asks, of                                                         question
first_nouns  what does the model say first? of a picture                      named_nouns
rewriting    does a rewritten word hold beyond its picture? of a noun         rewritten_word
sequences    do words rewritten in a row hold? of a sequence of nouns         rewritten_sequence
removals     is a word lost with its vector? of a picture                     removed_word
"""
