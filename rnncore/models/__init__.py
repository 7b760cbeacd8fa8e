"""Small models over the recurrent layers, as short as they can be read.

Each is a :class:`rnncore.nn.Module`: ``forward`` and ``backward`` to train, a call for inference,
``params``, ``grads`` and ``state_dict``. Layers are made outside and handed in.
"""

from rnncore.models.classifier import Classifier
from rnncore.models.decoder import Decoder, Seen
from rnncore.models.encoder_decoder import EncoderDecoder
from rnncore.models.forecaster import Forecaster
from rnncore.models.language_model import LanguageModel
from rnncore.models.one_to_many import OneToMany
from rnncore.models.search import Hypothesis, Sampled, beam_search, sample
from rnncore.models.sequence_model import SequenceModel
from rnncore.models.tagger import Tagger

__all__ = [
    "Classifier",
    "Decoder",
    "EncoderDecoder",
    "Forecaster",
    "Hypothesis",
    "LanguageModel",
    "OneToMany",
    "Sampled",
    "Seen",
    "SequenceModel",
    "Tagger",
    "beam_search",
    "sample",
]
