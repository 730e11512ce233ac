"""What users' data becomes on its way to the store and back. Begin with `policy.PayloadPolicy`.

Codecs (compressed, encrypted), the claim check for large values (`offload`), redaction, archives of histories, and
the context as a step sees it. Nothing here knows a store.
"""
