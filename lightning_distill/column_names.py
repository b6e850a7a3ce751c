"""What the columns of people's tables are called, those that are meant most often first."""

TEXTS = ("text", "sentence", "content", "review", "utterance", "body", "comment", "tweet")
PAIRS = (
    *(("sentence1", "sentence2"), ("premise", "hypothesis"), ("question1", "question2")),
    *(("text1", "text2"), ("query", "passage"), ("question", "sentence")),
)
# A text, and the text that is to be written of it.
WRITTEN = (
    *(("source", "target"), ("article", "highlights"), ("document", "summary")),
    *(("input", "output"), ("src", "tgt")),
)
# A sound, and what is said in it.
SPOKEN = (("audio", "text"), ("audio", "sentence"), ("audio", "transcription"))
# A text, one that belongs to it, and one that does not.
RELATED = (
    *(("anchor", "positive", "negative"), ("query", "positive", "negative")),
    *(("query", "pos", "neg"), ("question", "answer", "negative")),
)
LABELS = (
    *("label", "labels", "category", "class", "target", "intent", "sentiment", "topic", "tag"),
    *("tags", "ner_tags", "emotion", "rating", "score", "scores", "stars", "y"),
)
WORDS, TAGS = ("words", "tokens"), ("tags", "ner_tags", "labels", "slots", "pos_tags", "pos")
