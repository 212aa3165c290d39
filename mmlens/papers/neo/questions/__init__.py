"""The three tools of Neo et al. (2025), each a question about one picture and its summary.

module          asks                                                        question
object_tokens   is the thing at its own patches?                            token_ablations
patch_words     do these patches say its name, and in which layer?          word_shares
windows         in which layers does the last position read them?           window_effects

`neo.object_patches` says which patches are the thing's, those around it, and bare ground.
"""
