"""The tasks of ``tickwise run TASK``: who answers each, without importing any.

To add one: a line here, and a module in ``cli/`` with the named ``Arguments`` class (``cli/task_flags.py`` has what
tasks share) and ``run(arguments)``.
"""

TASKS: dict[str, tuple[str, str]] = {
    "classify": ("run_classify:Classify", "put texts into classes of your own"),
    "topic": ("run_classify:Topic", "tell the topic of a text"),
    "sentiment": ("run_classify:Sentiment", "tell whether a text is for or against something"),
    "spam": ("run_classify:Spam", "filter messages"),
    "question-type": ("run_classify:QuestionType", "tell what a question asks for"),
    "entities": ("run_entities:Arguments", "find named entities; train on tagged files of your own"),
    "answer": ("run_answer", "answer questions with spans of a passage"),
    "retrieve": ("run_retrieve:Retrieve", "find passages of your documents"),
    "ask": ("run_retrieve:Ask", "answer questions from your documents, with passage and score"),
    "knowledge": ("run_knowledge:Arguments", "answer questions from facts, with the path to each answer"),
    "summarise": ("run_summarise:Arguments", "summarise; train on texts with summaries of your own, or extract"),
    "chat": ("chat", "talk with a model that was fine-tuned on conversations"),
    "translate": ("run_translate:Arguments", "translate; train on sentence pairs of your own"),
    "text-to-text": ("run_text_to_text:Arguments", "many tasks by what stands before the text; train on several"),
    "embed": ("run_embed:Embed", "vectors of texts"),
    "similar": ("run_embed:Similar", "the texts of a file that are likest to a text"),
    "fill-mask": ("run_embed:FillMask", "words for the places that a text leaves open with [MASK]"),
    "next-word": ("run_next_word:Arguments", "the words that a text goes on with, by any language model"),
    "sample": ("run_sentences:Sample", "write sentences with a text VAE"),
    "reconstruct": ("run_sentences:Reconstruct", "write sentences again from what a text VAE keeps of them"),
    "interpolate": ("run_sentences:Interpolate", "write what lies between two sentences"),
    "likelihood": ("run_sentences:Likelihood", "how likely a text VAE finds sentences, and what its places say"),
    "keywords": ("run_keywords:Arguments", "the words and phrases that matter in a text"),
}
"""Task → ("module:class" in ``tickwise.cli``, what it does in a line)."""
