"""What is asked of a picture, each with its summary.

module    asks                                                               question
pruning   what is lost without a circuit, and what is kept with it alone?    pruned_circuit
graphs    does silencing a node do what an attribution graph says?           graph_nodes
"""
