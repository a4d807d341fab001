"""Networks by name or by a function of the user: ``torchvision:NAME``, ``timm:NAME``, ``hf:FOLDER``."""
