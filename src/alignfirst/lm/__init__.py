"""Language models: the only room that imports torch and transformers. Without them it says so, and how to get them."""

from __future__ import annotations

from alignfirst.extras import need

need("torch", "transformers", "safetensors")
