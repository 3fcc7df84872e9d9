"""The features of this project: what the library's standard views offer, chosen here.

Add your own with `FeatureView(...)` beside them; every module of this folder is read.
"""

from lodestore.standard import assistant as assistant
from lodestore.standard import document_features as document_features
from lodestore.standard import personalized as personalized
from lodestore.standard import prompt_templates as prompt_templates
from lodestore.standard import template_performance as template_performance
from lodestore.standard import user_activity as user_activity
from lodestore.standard import user_profile as user_profile
