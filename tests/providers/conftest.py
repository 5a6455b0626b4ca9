from __future__ import annotations

from fake_openai import fake as fake
