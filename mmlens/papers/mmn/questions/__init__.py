"""The experiments of "Multimodal Neurons in Pretrained Text-Only Transformers", and some more.

Schwettmann, Chowdhury, Klein, Bau & Torralba (2023), arXiv:2308.01544. Each module is one
experiment and opens with its protocol: a *question* about one picture, which a sweep asks about
many, and a `summary` of its table with bootstrap intervals over pictures.

    from mmlens.papers.mmn import ablation
    from mmlens.papers.tables import ask

    table = ask(ablation.ablations, model, mm.dataset("pictos:held_out:20"), ks=[0, 0.004, 0.014])
    ablation.summary(table)            # experiment, arm, metric, k, mean, low, high, n, ...

    module          asks                                            question
    translate       E1  do neurons say what is in the picture?      top_units
    project         E2  does the projection say it already?         nearest_words
    regions         E3  do neurons look at what they name?          unit_regions
    classes         E4  are they quiet on other classes?            top_units, class_activations
    ablation        E5  does the caption depend on them?            ablations
    layers          E6  in which layers are they?                   top_units
    sheet           E7  one picture, its neurons, where they look   picture_sheet
    faithfulness        which attribution method is true?           faithful
    sensitivity         what does each reading change?              option_effects
    readings            which way of reading a unit is true?        unit_readings
    routes              which way does a thing take to its word?    route_effects
    estimates           what is attribution patching worth?         estimated

`bootstrap` makes the intervals, `comparisons` the tests of two arms; `question_options` says what
each option of a question may be. What the paper leaves open is an option, recorded in the column
`options` of every table.
"""
