"""Asks a GGUF file through llama.cpp; runs in a Python that has llama-cpp-python, alone.

``python llama_cpp_alone.py`` reads JSON from its input: ``model``, ``prompts``, ``max_tokens`` and
``messages``, a list of conversations. It writes the greedy ``texts`` after the prompts and the
greedy ``replies`` to the conversations, which go through the file's own chat template.
"""

import json
import sys

from llama_cpp import Llama

asked = json.load(sys.stdin)
model = Llama(
    asked["model"], n_ctx=asked.get("context", 512), n_threads=1, n_gpu_layers=0, verbose=False
)
greedy = {"max_tokens": asked["max_tokens"], "temperature": 0.0, "repeat_penalty": 1.0}
texts = [model.create_completion(p, **greedy)["choices"][0]["text"] for p in asked["prompts"]]
replies = [
    model.create_chat_completion(m, **greedy)["choices"][0]["message"]["content"]
    for m in asked["messages"]
]
json.dump({"texts": texts, "replies": replies}, sys.stdout)
