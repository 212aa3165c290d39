"""What is asked of a picture: `nouns_said`, of its caption, and `noun_stream`, of the stream there.

module          asks                                                      question
caption_nouns   which noun does the caption say first, and what holds     nouns_said, noun_stream
                the stream of the last layer where it is predicted?
"""
